"""What a model, its tokenizer and template, and the user's rows decide about a run: found before its work begins.

One file a kind of check. Each raises a StageError whose message names the cause and one remedy; `checks.py` collects
them, so that a person reads all of them at once.
"""
