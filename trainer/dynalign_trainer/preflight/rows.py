"""The user's own rows against the chat template, the tokenizer, the context window, and the number that is needed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import BadInputError
from dynalign_contract.settings import PromptSettings, Rewards, columns_of_rewards
from dynalign_contract.supplied.amount import explain_shortage
from dynalign_contract.supplied.files import SuppliedFile, SuppliedRow, read_supplied
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.template_errors import TemplateRefusalError
from dynalign_trainer.preflight.advice import advise
from dynalign_trainer.preflight.reward_columns import check_columns

_BATCH: Final = 512
_NAMED: Final = 8


@dataclass(frozen=True)
class Room:
    """What a model leaves to a prompt."""

    tokens: int
    """Maximum length of a prompt in tokens, chat template included."""
    rows: int | None
    """Rows of the embedding; None where they are not known."""


def check_rows(
    template: ChatTemplate,
    settings: PromptSettings,
    room: Room,
    path: Path,
    look: Callable[[], None],
    *,
    rewards: Rewards = (),
) -> list[str]:
    """Check every row of the file; returns notes. `look` is called now and then and may raise.

    Raises BadInputError naming the file, the lines and what to change in them, or the number of rows.
    """
    file = read_supplied(path, "prompts.supplied", columns_of_rewards(rewards))
    columns = check_columns(file, rewards)
    texts = _render(template, file)
    _check_shown(template, file, texts)
    lengths = _measure(template.tokenizer, file, texts, room, look)
    drops = _find_drops(file, lengths, settings, room)
    unused = {row.place for drop in drops for row in drop.rows}
    told = [f"{path}: {drop.what}: {_name(drop.rows)}." for drop in drops]
    usable = len(file.rows) - len(unused)
    if explain_shortage(settings, usable, path) is not None:
        raise BadInputError(" ".join([*told, _remedy(settings, file, drops, usable)]))
    return [*file.notes(), *columns, *told]


@dataclass(frozen=True)
class _Drop:
    """Rows that will not be used."""

    rows: tuple[SuppliedRow, ...]
    what: str
    remedy: str


def _find_drops(file: SuppliedFile, lengths: Sequence[int], settings: PromptSettings, room: Room) -> list[_Drop]:
    long = tuple(row for row, length in zip(file.rows, lengths, strict=True) if length > room.tokens)
    short = tuple(row for row in file.rows if len(row.turns[-1]["content"]) < settings.min_characters)
    total = len(file.rows)
    found = (
        _Drop(
            long,
            f"{len(long)} of {total} rows have more than {room.tokens} tokens and are not used",
            "raise spec.prompts.maxTokens (and spec.engine.maxLength with it)",
        ),
        _Drop(
            short,
            f"{len(short)} of {total} rows have fewer than {settings.min_characters} characters and are not used",
            "lower spec.prompts.minCharacters",
        ),
    )
    return [drop for drop in found if drop.rows]


def _remedy(settings: PromptSettings, file: SuppliedFile, drops: Sequence[_Drop], usable: int) -> str:
    """What to do about too few rows: the file is too small as it is, or its rows are dropped."""
    text = explain_shortage(settings, len(file.rows), file.path)
    if text is not None:
        return text
    remedies = " or ".join(drop.remedy for drop in drops)
    return (
        f"{usable} rows are left, fewer than spec.prompts.perIteration {settings.per_iteration} needs. "
        f"{remedies[0].upper()}{remedies[1:]}, or add rows."
    )


def _render(template: ChatTemplate, file: SuppliedFile) -> list[str]:
    """Every row as a text. Raises BadInputError telling each cause once, with its lines."""
    texts: list[str] = []
    refused: dict[str, list[SuppliedRow]] = {}
    for row in file.rows:
        try:
            texts.append(template.render(row.turns))
        except TemplateRefusalError as error:
            refused.setdefault(f"({error.why}). {advise(template, row.turns)}", []).append(row)
    if refused:
        raise BadInputError(
            " ".join(
                f"{file.path}, {_name(rows)}: the model's chat template does not take this chat {text}"
                for text, rows in refused.items()
            )
        )
    return texts


def _check_shown(template: ChatTemplate, file: SuppliedFile, texts: Sequence[str]) -> None:
    """Make sure that the template shows system turns and not only takes them. Raises BadInputError."""
    lost = [
        row
        for row, text in zip(file.rows, texts, strict=True)
        if any(turn["role"] == "system" and _squeeze(turn["content"]) not in _squeeze(text) for turn in row.turns)
    ]
    if lost and _squeeze("Be kind to 7 cats.") not in _squeeze(
        _try_render(template, [Message(role="system", content="Be kind to 7 cats."), *lost[0].turns[-1:]])
    ):
        raise BadInputError(
            f"{file.path}, {_name(lost)}: the model's chat template leaves out what the system turn says. Write that "
            "text at the beginning of the first user turn instead."
        )


def _try_render(template: ChatTemplate, turns: Sequence[Message]) -> str:
    try:
        return template.render(turns)
    except TemplateRefusalError:
        return ""


def _measure(
    tokenizer: Any, file: SuppliedFile, texts: Sequence[str], room: Room, look: Callable[[], None]
) -> list[int]:
    """Tokens of every row. Raises BadInputError naming rows with tokens that the model has no embedding for."""
    lengths: list[int] = []
    beyond: list[SuppliedRow] = []
    for start in range(0, len(texts), _BATCH):
        look()
        found = tokenizer(list(texts[start : start + _BATCH]), add_special_tokens=False)["input_ids"]
        for row, ids in zip(file.rows[start : start + _BATCH], found, strict=True):
            lengths.append(len(ids))
            if room.rows is not None and max(ids, default=0) >= room.rows:
                beyond.append(row)
    if beyond:
        raise BadInputError(
            f"{file.path}, {_name(beyond)}: the text holds a token for which the model's embedding of {room.rows} rows "
            "has none. Take it out of the row."
        )
    return lengths


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _name(rows: Sequence[SuppliedRow]) -> str:
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return ", ".join(row.place for row in rows[:_NAMED]) + more
