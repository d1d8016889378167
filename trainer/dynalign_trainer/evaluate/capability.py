"""General capability: tasks of lm-evaluation-harness on the policy, and once a run on the base model."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dynalign_contract.config import EvaluateParams, Policy
from dynalign_contract.errors import CorruptArtifactError
from dynalign_contract.inputs import Input
from dynalign_contract.layout import CAPABILITY_FILE
from dynalign_contract.metrics import EvaluateMetrics, MetricValues
from dynalign_contract.records import CAPABILITY, CapabilityRow, read_rows, write_rows
from dynalign_contract.settings import CapabilitySettings
from dynalign_trainer.evaluate.bootstrap import Floats
from dynalign_trainer.evaluate.paired import TaskScores, estimate_capability
from dynalign_trainer.evaluate.progress import Progress
from dynalign_trainer.evaluate.splitting import Part
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.importing import importing

if TYPE_CHECKING:
    from dynalign_trainer.tasks.suites import Suite

log = logging.getLogger("dynalign.evaluate")


@dataclass(frozen=True)
class CapabilityResult:
    """What the tasks have brought."""

    metrics: MetricValues[EvaluateParams] = field(default_factory=dict)
    """None when no task is wanted. The scores of single tasks come last."""

    @property
    def regressed(self) -> bool:
        """Whether the policy has lost more than `maxDrop`, with confidence."""
        return self.metrics.get(EvaluateMetrics.capability_regressed) == 1


class CapabilityEvaluation:
    """The tasks of one evaluation, or a shard's items of them.

    Loading them is cheap next to their answers, so it comes first.
    """

    def __init__(self, context: StageContext[EvaluateParams]) -> None:
        """Raises BadInputError when a task or its data cannot be found."""
        self._context = context
        self._settings = context.params.evaluation.capability
        self._suites = _load(self._settings, context.layout.tasks)
        self._part = Part(context.shard, context.config.shards)

    @property
    def units(self) -> int:
        """Items to go through, those of the base model included."""
        policies = {Policy().version, self._context.params.policy.version}
        return len(policies) * sum(_count_items(suite, self._part) for suite in self._suites)

    def run(self, engine: Engine, progress: Progress) -> dict[str, int]:
        """Write a CAPABILITY row for each item of policy and base model; file -> rows, none when no task is wanted.

        Rows that an attempt with the same configuration has written are kept, and those of the base model that an
        earlier evaluation has written as long as they answer the very same requests.
        """
        if not self._suites:
            return {}
        policy, base = self._context.params.policy, Policy()
        path = self._context.folder / CAPABILITY_FILE
        thinking_tokens = self._context.params.thinking_tokens
        sitting = _ScoreCache(engine, progress, self._part, thinking_tokens, known=(_read(path), self._earlier()))
        written: list[CapabilityRow] = []
        for suite in self._suites:
            own = sitting.rows(suite, policy)
            others = own if policy == base else sitting.rows(suite, base, like=own)
            written += own if policy == base else [*others, *own]
            write_rows(path, written, CAPABILITY)
        return {CAPABILITY_FILE: len(written)}

    def _earlier(self) -> list[CapabilityRow]:
        if Input.CAPABILITY not in self._context.inputs:
            return []
        rows = _read(self._context.input(Input.CAPABILITY) / CAPABILITY_FILE)
        return [row for row in rows if row["policy"] == Policy().version]


def measure_capability(rows: Sequence[CapabilityRow], params: EvaluateParams, *, seed: int) -> CapabilityResult:
    """What the CAPABILITY rows of an evaluation amount to. Pure."""
    settings = params.evaluation.capability
    if not settings.tasks:
        return CapabilityResult()

    def scores_of(task: str, policy: Policy) -> Floats:
        found = [row["score"] for row in rows if (row["task"], row["policy"]) == (task, policy.version)]
        return np.array(found, dtype=np.float64)

    tasks = [TaskScores(name, scores_of(name, params.policy), scores_of(name, Policy())) for name in settings.tasks]
    return CapabilityResult(summarise(tasks, settings, seed=seed))


def summarise(tasks: Sequence[TaskScores], settings: CapabilitySettings, *, seed: int) -> MetricValues[EvaluateParams]:
    """The stage's metrics about capability, the most important first. Pure."""
    found = estimate_capability(tasks, confidence=settings.confidence, resamples=settings.resamples, seed=seed)
    return {
        **EvaluateMetrics.capability.split(found.score),
        **EvaluateMetrics.capability_delta.split(found.delta),
        EvaluateMetrics.capability_regressed: float(found.dropped(settings.max_drop)),
        EvaluateMetrics.capability_items: float(sum(len(scores.policy) for scores in tasks)),
        **{EvaluateMetrics.task.of(scores.task): scores.mean for scores in tasks},
        **{EvaluateMetrics.task_delta.of(scores.task): scores.delta for scores in tasks},
    }


@dataclass(frozen=True)
class _ScoreCache:
    """Where rows come from: what is known already, else the engine."""

    engine: Engine
    progress: Progress
    part: Part
    thinking_tokens: int | None
    known: tuple[Sequence[CapabilityRow], ...]

    def rows(self, suite: "Suite", policy: Policy, like: Sequence[CapabilityRow] | None = None) -> list[CapabilityRow]:
        """One policy's rows of one task; known ones must answer the requests of the rows `like`, one by one."""
        with importing():
            from dynalign_trainer.evaluate.harness import measure

        items = _count_items(suite, self.part)
        watch = self.progress.begin(items)
        if not items:
            return []
        wanted = None if like is None else {row["item"] for row in like}
        for rows in self.known:
            found = [row for row in rows if (row["task"], row["policy"]) == (suite.name, policy.version)]
            if wanted is not None:  # an earlier evaluation has the items of all shards
                found = [row for row in found if row["item"] in wanted]
            if found and (like is None or [*map(_asked, found)] == [*map(_asked, like)]):
                return found
        return measure(self.engine, suite, policy, watch, thinking_tokens=self.thinking_tokens, part=self.part)


def _asked(row: CapabilityRow) -> tuple[str, str, str]:
    return row["item"], row["request"], row["metric"]


def _count_items(suite: "Suite", part: Part) -> int:
    return sum(map(part.size, suite.counts))


def _load(settings: CapabilitySettings, data: Path) -> "list[Suite]":
    if not settings.tasks:
        return []
    with importing():
        from dynalign_trainer.tasks.suites import load_suites

    return load_suites(settings.tasks, settings.limit, data)


def _read(path: Path) -> list[CapabilityRow]:
    if not path.exists():
        return []
    try:
        return read_rows(path, CAPABILITY)
    except CorruptArtifactError:
        log.warning("%s is damaged and is made again", path)
        return []
