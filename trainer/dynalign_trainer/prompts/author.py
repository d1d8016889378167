"""The scenario author: writes one task or dilemma from a seed."""

import re
from collections.abc import Sequence
from string import Template
from typing import Final

from dynalign_contract.config import Policy
from dynalign_contract.objective import Objective
from dynalign_contract.settings import AuthorSettings
from dynalign_trainer.engine import Engine, Sampling, Watch
from dynalign_trainer.prompts.drafts import Draft, Tally
from dynalign_trainer.prompts.seeds import Seed

_QUOTES: Final = {'"': '"', "'": "'", "`": "`", "“": "”", "\u2018": "\u2019", "«": "»", "*": "*"}
_SENTENCE_END: Final = re.compile(r"[.!?…。\uff01\uff1f]+[\"'”\u2019»)]*(?=\s|$)")


def write_drafts(
    engine: Engine,
    objective: Objective,
    settings: AuthorSettings,
    seeds: Sequence[Seed],
    *,
    policy: Policy,
    sampling_seeds: Sequence[int],
    tally: Tally,
    watch: Watch,
) -> list[Draft]:
    """One cleaned draft for each seed, in order; its text is empty where the author wrote nothing of use."""
    openings = [Template(objective.author.opening).safe_substitute(seed) for seed in seeds]
    prompts = [author_ids(engine, objective, seed, opening) for seed, opening in zip(seeds, openings, strict=True)]
    sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p, max_tokens=settings.max_tokens)
    groups = engine.sample(prompts, sampling, policy=policy, seeds=sampling_seeds, watch=watch)
    tally.drafts += len(seeds)
    drafts = []
    for seed, opening, ids, (sample,) in zip(seeds, openings, prompts, groups, strict=True):
        tally.tokens += len(ids) + len(sample.token_ids)
        drafts.append(Draft(clean(opening, sample.text, finished=sample.finish_reason == "stop"), seed))
    return drafts


def author_ids(engine: Engine, objective: Objective, seed: Seed, opening: str) -> list[int]:
    """Token ids that the author goes on from: the request for a task, the prefill and the task's opening."""
    message = Template(objective.author.message).safe_substitute(seed, preamble=objective.preamble)
    return engine.chat_ids([{"role": "user", "content": message}], objective.author.prefill + opening)


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
