"""The tokenizer against the model's embedding: an id without a row ends training in the middle of a step."""

from collections.abc import Iterable
from typing import Any

from dynalign_contract.errors import BadInputError
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.template_errors import TemplateRefusalError, ThinkingError


def check_vocabulary(tokenizer: Any, where: str) -> None:
    """Raise BadInputError when the tokenizer makes nothing of a text."""
    if not tokenizer.get_vocab() or not tokenizer.encode("Hello", add_special_tokens=False):
        raise BadInputError(
            f"the tokenizer in {where} has an empty vocabulary, so texts become nothing. Restore its files, or name a "
            "complete model in spec.model.uri."
        )


def check_ids(template: ChatTemplate, rows: int, where: str) -> str | None:
    """Hold every id that texts, the chat template and the named tokens can bring against the embedding's rows.

    Special tokens that no template writes (an image's place in a text-only model) do no harm; they are told in the
    note that is returned. Raises BadInputError naming the tokens.
    """
    tokenizer = template.tokenizer
    beyond = {token: index for token, index in tokenizer.get_vocab().items() if index >= rows}
    if not beyond:
        return None
    reachable = _find_reachable(template, beyond.values())
    harmful = {token: index for token, index in beyond.items() if index in reachable}
    if not harmful:
        return (
            f"the tokenizer in {where} has {_quote(beyond)}, for which the model's embedding of {rows} rows has none; "
            "no prompt may hold it."
        )
    raise BadInputError(
        f"the tokenizer in {where} gives ids up to {max(harmful.values())} ({_quote(harmful)}), but the model's "
        f"embedding has {rows} rows: tokens were added to the one and not to the other. Load both with transformers, "
        "call model.resize_token_embeddings(len(tokenizer)), train the new rows and save both; or take the added "
        "tokens out of the tokenizer and of its chat template."
    )


def _find_reachable(template: ChatTemplate, candidates: Iterable[int]) -> set[int]:
    """Ids among the candidates that ordinary texts, the chat template, or the tokenizer's named tokens bring."""
    tokenizer = template.tokenizer
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    named = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    return {index for index in candidates if index not in special or index in named} | _render_ids(template)


def _render_ids(template: ChatTemplate) -> set[int]:
    """Ids of chats with all kinds of turns, of those that the template takes."""
    user = Message(role="user", content="Hello")
    chats = (
        [user],
        [Message(role="system", content="Hello"), user],
        [user, Message(role="assistant", content="Hello"), user],
    )
    found: set[int] = set()
    for chat in chats:
        try:
            found |= {*template.encode(chat), *template.encode_answer(chat, "")}
        except (TemplateRefusalError, ThinkingError):
            continue  # the rows are held against the template by themselves
    return found


def _quote(tokens: dict[str, int]) -> str:
    shown = sorted(tokens, key=lambda token: tokens[token])[-3:]
    more = f" and {len(tokens) - len(shown)} more" if len(tokens) > len(shown) else ""
    return ", ".join(shown) + more
