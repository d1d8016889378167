"""Values that a report is made of: what is known of runs, of their stages, and of what their models wrote."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dynalign_contract.metrics import MetricDef, read_metrics
from dynalign_contract.run_facts import ConditionFacts, RunFacts, StageFacts

Numbers = Mapping[MetricDef[Any], float]
"""Definition of a metric -> its value."""


@dataclass(frozen=True)
class Candidate:
    """A candidate answer with everything that decided its reward."""

    number: int
    text: str
    thought: str = ""
    truncated: bool = False
    """The answer was cut off at `generation.maxTokens`."""
    reward: float | None = None
    raw_reward: float | None = None
    """Aggregate of the aspects, before verifiers and penalties."""
    aspects: Mapping[str, float | None] = field(default_factory=dict)
    """Aspect -> expected digit, 0 to 9."""
    verifiers: Mapping[str, float | None] = field(default_factory=dict)
    judges: Mapping[str, float | None] = field(default_factory=dict)
    penalties: Mapping[str, float | None] = field(default_factory=dict)
    advantage: float | None = None
    """None before training, and where its group teaches nothing."""


@dataclass(frozen=True)
class Group:
    """All candidates of one training prompt."""

    prompt_id: str
    messages: tuple[tuple[str, str], ...]
    """Role and content of each turn of the prompt."""
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Comparison:
    """One judge's comparison of an answer with that of another policy."""

    judge: str
    opponent: str
    """`base` or `previous`."""
    outcome: float | None
    """1 win, 0.5 tie, 0 loss; None if the judge gave no answer."""
    first: float | None
    """The judge's preference for the policy when its answer is shown first, 0 to 1."""
    second: float | None


@dataclass(frozen=True)
class HeldOutAnswer:
    """The answer of an iteration's policy to a held-out prompt."""

    iteration: int
    text: str
    thought: str = ""
    change: float = 0.0
    """Share of words that differ from the base model's answer, 0 to 1."""
    comparisons: tuple[Comparison, ...] = ()
    verifiers: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class HeldOutPrompt:
    """A held-out prompt with the answers before training and after each evaluated iteration."""

    prompt_id: str
    messages: tuple[tuple[str, str], ...]
    before: str
    """The base model's answer."""
    before_verifiers: Mapping[str, float | None]
    after: tuple[HeldOutAnswer, ...]


@dataclass(frozen=True)
class ReportedRun:
    """Everything that a report shows of one run."""

    label: str
    """Name that no other run of the report has."""
    facts: RunFacts
    stages: tuple[StageFacts, ...]
    groups: Mapping[int, tuple[Group, ...]] = field(default_factory=dict)
    """Iteration -> its training prompts with their candidates."""
    held_out: tuple[HeldOutPrompt, ...] = ()
    problems: tuple[str, ...] = ()
    """What could not be read, a sentence each."""

    @property
    def numbers(self) -> dict[int, dict[MetricDef[Any], float]]:
        """Iteration -> metric -> value, in the order of iterations."""
        found: dict[int, dict[MetricDef[Any], float]] = {}
        for entry in self.stages:
            if entry.iteration is not None:
                found.setdefault(entry.iteration, {}).update(read_metrics(entry.stage, entry.metrics))
        return dict(sorted(found.items()))


__all__ = [
    "Candidate",
    "Comparison",
    "ConditionFacts",
    "Group",
    "HeldOutAnswer",
    "HeldOutPrompt",
    "Numbers",
    "ReportedRun",
    "RunFacts",
    "StageFacts",
]
