"""The scenario author: writes one task or dilemma from a seed."""

import re
from collections.abc import Mapping, Sequence
from string import Template
from typing import Final

from dynalign_contract.agents import AuthorSettings
from dynalign_contract.objective import Objective
from dynalign_trainer.models.chat_model import ChatModel, ChatTurn, Sampling
from dynalign_trainer.prompts.drafts import Actor, Draft, Drop, Tally
from dynalign_trainer.prompts.seeds import Seed
from dynalign_trainer.runtime.progress import Watch

_QUOTES: Final = {'"': '"', "'": "'", "`": "`", "“": "”", "\u2018": "\u2019", "«": "»", "*": "*"}
_SENTENCE_END: Final = re.compile(r"[.!?…。\uff01\uff1f]+[\"'”\u2019»)]*(?=\s|$)")


def write_drafts(
    model: ChatModel,
    objective: Objective,
    settings: AuthorSettings,
    seeds: Sequence[Seed],
    *,
    names: Sequence[str],
    sampling_seeds: Sequence[int],
    tally: Tally,
    watch: Watch,
) -> list[Draft]:
    """Cleaned drafts, one for each seed that the author made something of; `names` are their ids, in order."""
    turns = [_turn(objective, seed) for seed in seeds]
    sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p, max_tokens=settings.max_tokens)
    model.forget()
    found = model.write(turns, sampling, seeds=sampling_seeds, watch=watch)
    tally.of(Actor.AUTHOR).given += len(seeds)
    drafts = []
    for name, seed, completion in zip(names, seeds, found, strict=True):
        draft = Draft("", seed, draft_id=name)
        if completion is None:
            tally.drop(Actor.AUTHOR, Drop.BUDGET, draft)
            continue
        text = clean(completion.opening, completion.text, finished=completion.finished)
        draft = Draft(text, seed, draft_id=name, opening=seeded_opening(objective, seed))
        if text:
            drafts.append(draft)
        else:
            tally.drop(Actor.AUTHOR, Drop.UNFINISHED, draft)
    return tally.keep(Actor.AUTHOR, drafts)


def seeded_opening(objective: Objective, seed: Mapping[str, str]) -> str:
    """How a prompt of this seed begins: the part that the author does not write."""
    return Template(objective.author.opening).safe_substitute(seed, preamble=objective.preamble)


def _turn(objective: Objective, seed: Seed) -> ChatTurn:
    message = Template(objective.author.message).safe_substitute(seed, preamble=objective.preamble)
    return ChatTurn(message, objective.author.prefill, seeded_opening(objective, seed))


def clean(opening: str, continuation: str, *, finished: bool) -> str:
    """The prompt in an author's answer: its first line, without marks of quotation and half a sentence at its end.

    Empty when nothing is left that the author, and not only the opening, has said.
    """
    text = opening + continuation if opening else continuation.lstrip()
    line = _unquote(" ".join(text.split("\n", 1)[0].split()))
    ends = [match.end() for match in _SENTENCE_END.finditer(line)]
    if ends:
        line = line[: ends[-1]] if not finished or _trails_off(line[ends[-1] :]) else line
    elif not finished:
        return ""
    return line if len(line) > len(opening.strip()) else ""


def _unquote(line: str) -> str:
    """Drop quotation marks that embrace the whole line, and a lone one at either end."""
    for mark, end in _QUOTES.items():
        while len(line) > 1 and line.startswith(mark) and line.endswith(end):
            line = line[1:-1].strip()
    for mark in '"“”':
        if line.count(mark) == 1 and mark in (line[:1], line[-1:]):
            line = line.strip(mark).strip()
    return line


def _trails_off(rest: str) -> bool:
    """Whether what follows the last finished sentence is a remnant, not a sentence whose full stop was left out."""
    return len(rest.split()) < 3
