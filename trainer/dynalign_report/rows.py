"""JSON rows of the sample browser, and which of them go into the page first. Pure.

Names are short because there are tens of thousands of rows; `assets/samples.js` reads them.
"""

import hashlib
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any, Final

from dynalign_contract.plain_text import reveal_hidden
from dynalign_report.embedding import interleave
from dynalign_report.facts import Candidate, Group, HeldOutPrompt

MAX_TEXT: Final = 20_000
"""Characters of one text in the page; the Parquet files have all of it."""


def group_rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Groups as JSON, most telling first: largest spread, best, worst, and an even sample, in turn."""
    means = [_mean(group) for group in groups]
    spreads = [_spread(group) for group in groups]
    indexes = range(len(groups))
    order = interleave(
        [
            sorted(indexes, key=lambda i: -spreads[i]),
            sorted(indexes, key=lambda i: -means[i]),
            sorted(indexes, key=lambda i: means[i]),
            sorted(indexes, key=lambda i: hashlib.sha256(groups[i].prompt_id.encode()).digest()),
        ]
    )
    return [
        {
            "id": groups[i].prompt_id,
            "m": _turns(groups[i].messages),
            "r": round(means[i], 4),
            "sd": round(spreads[i], 4),
            "c": [_candidate(candidate) for candidate in groups[i].candidates],
        }
        for i in order
    ]


def held_out_rows(prompts: Sequence[HeldOutPrompt]) -> list[dict[str, Any]]:
    """Held-out prompts as JSON, those whose latest answer changed most first."""
    ordered = sorted(prompts, key=lambda prompt: -prompt.after[-1].change if prompt.after else 0.0)
    return [
        {
            "id": prompt.prompt_id,
            "m": _turns(prompt.messages),
            "b": _text(prompt.before),
            "bv": dict(prompt.before_verifiers),
            "a": [
                {
                    "i": answer.iteration,
                    "t": _text(answer.text),
                    **_filled(h=_text(answer.thought) if answer.thought else None, v=dict(answer.verifiers)),
                    "d": answer.change,
                    "o": [[c.judge, c.opponent, c.outcome, c.first, c.second] for c in answer.comparisons],
                }
                for answer in prompt.after
            ],
        }
        for prompt in ordered
    ]


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "k": candidate.number,
        "t": _text(candidate.text),
        "r": candidate.reward,
        **_filled(
            h=_text(candidate.thought) if candidate.thought else None,
            x=True if candidate.truncated else None,
            w=candidate.raw_reward if candidate.raw_reward != candidate.reward else None,
            a=candidate.advantage,
            s=dict(candidate.aspects),
            v=dict(candidate.verifiers),
            j=dict(candidate.judges),
            p={name: value for name, value in candidate.penalties.items() if value},
        ),
    }


def _filled(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value != {}}


def _turns(messages: Sequence[tuple[str, str]]) -> list[list[Any]]:
    return [[role, _text(content)] for role, content in messages]


def _text(text: str) -> str | list[Any]:
    """The text with its hidden characters named; one that is too long as its beginning and its length."""
    if len(text) <= MAX_TEXT:
        return reveal_hidden(text)
    return [reveal_hidden(text[:MAX_TEXT]), len(text)]


def _rewards(group: Group) -> list[float]:
    return [candidate.reward for candidate in group.candidates if candidate.reward is not None]


def _mean(group: Group) -> float:
    rewards = _rewards(group)
    return fmean(rewards) if rewards else 0.0


def _spread(group: Group) -> float:
    rewards = _rewards(group)
    return pstdev(rewards) if len(rewards) > 1 else 0.0
