"""Candidate answers with their rewards, as rows that are easy to read in a notebook."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dynalign_report.facts import ReportedRun


@dataclass(frozen=True)
class Sample:
    """A candidate answer of one iteration, and what decided its reward."""

    iteration: int
    """0-based."""
    prompt_id: str
    prompt: str
    """The last turn of the prompt; `messages` has all of them."""
    messages: tuple[tuple[str, str], ...]
    """Role and content of each turn."""
    candidate: int
    """0-based number within the prompt's group."""
    answer: str
    thought: str
    truncated: bool
    """The answer was cut off at `generation.maxTokens`."""
    reward: float | None
    """0 to 1; None where no judge gave one."""
    aspects: Mapping[str, float | None]
    """Aspect -> expected digit, 0 to 9."""
    verifiers: Mapping[str, float | None]
    judges: Mapping[str, float | None]
    advantage: float | None
    """None before training, and where its group teaches nothing."""


def samples_of(run: ReportedRun, iteration: int | None) -> Iterator[Sample]:
    """The candidates of an iteration, of all iterations for None, in the order of prompts."""
    for index, groups in run.groups.items():
        if iteration not in (None, index):
            continue
        for group in groups:
            for found in group.candidates:
                yield Sample(
                    iteration=index,
                    prompt_id=group.prompt_id,
                    prompt=group.messages[-1][1] if group.messages else "",
                    messages=group.messages,
                    candidate=found.number,
                    answer=found.text,
                    thought=found.thought,
                    truncated=found.truncated,
                    reward=found.reward,
                    aspects=found.aspects,
                    verifiers=found.verifiers,
                    judges=found.judges,
                    advantage=found.advantage,
                )
