"""Teaches a random model the form of a thought, so that some of its completions leave one and answer."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dynalign_contract.settings import ChatSettings
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.models.reasoning import close_thought, opened_thought

_STEPS: Final = 120
_BATCH: Final = 8
_LEARNING_RATE: Final = 5e-3
"""Falls to zero over the steps. About half of the completions of a model taught so are a whole thought and an answer."""
_LETTERS: Final = "abcdefgh"
_CHANNELS: Final = (
    "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}",
    "<think>{}</think>{}",
)
_IGNORED: Final = -100


def teach_thoughts(folder: Path, settings: ChatSettings, questions: Sequence[str]) -> None:
    """Train the model in a folder, in place, to write a few letters as a thought and a few as an answer to questions."""
    import torch
    from transformers import AutoModelForCausalLM

    chat = ChatTemplate(load_tokenizer(folder), settings)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=_STEPS)
    torch.manual_seed(0)
    draw = random.Random(0)
    for _ in range(_STEPS):
        ids, labels = _batch(chat, draw.choice(questions), draw)
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        decay.step()
    model.save_pretrained(folder)


def _batch(chat: ChatTemplate, question: str, draw: random.Random) -> tuple[Any, Any]:
    """Token ids and labels of completions of one question; shape (batch, tokens) each. Padding has no label."""
    import torch

    prompt = chat.encode([Message(role="user", content=question)])
    rows = [_completion(chat, prompt, draw) for _ in range(_BATCH)]
    width = max(map(len, rows))
    pad, eos = chat.tokenizer.pad_token_id, chat.tokenizer.eos_token_id
    ids = [[*prompt, *row, *[pad] * (width - len(row))] for row in rows]
    labels = [[*[_IGNORED] * len(prompt), *row, *[_IGNORED] * (width - len(row))] for row in rows]
    assert all(row[-1] == eos for row in rows)
    return torch.tensor(ids), torch.tensor(labels)


def _completion(chat: ChatTemplate, prompt: list[int], draw: random.Random) -> list[int]:
    """A thought and an answer in the form that the prompt asks for, and the end of the turn."""
    before = chat.tokenizer.decode(prompt)
    if "<|channel|>" in chat.form.answer_start:
        form = _CHANNELS[0]
    elif opened_thought(before):
        form = "{}" + close_thought(before) + "{}"
    else:
        form = _CHANNELS[1]
    text = form.format(_letters(draw), _letters(draw))
    return [*chat.tokenizer.encode(text, add_special_tokens=False), chat.tokenizer.eos_token_id]


def _letters(draw: random.Random) -> str:
    return "".join(draw.choices(_LETTERS, k=draw.randint(1, 4)))
