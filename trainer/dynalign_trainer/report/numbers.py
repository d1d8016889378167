"""A run's numbers as trackers take them: named `stage.metric`, one set for each finished iteration. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from dynalign_contract.metrics import read_metrics
from dynalign_contract.run_facts import StageFacts

_LONGEST_VALUE = 500


@dataclass(frozen=True)
class IterationNumbers:
    """What the stages of an iteration have measured and left."""

    index: int
    metrics: Mapping[str, float]
    """`evaluate.win_rate` -> value."""
    artifacts: Mapping[str, str]
    """Stage -> digest of its artifact."""


def numbers_by_iteration(stages: Iterable[StageFacts], last: int | None) -> list[IterationNumbers]:
    """The numbers of the iterations up to `last`, in their order; none where no iteration has finished."""
    found: dict[int, IterationNumbers] = {}
    for entry in stages:
        if entry.iteration is None or last is None or entry.iteration > last:
            continue
        before = found.get(entry.iteration, IterationNumbers(entry.iteration, {}, {}))
        values = {
            f"{entry.stage}.{metric.name}": value for metric, value in read_metrics(entry.stage, entry.metrics).items()
        }
        digests = {str(entry.stage): entry.digest} if entry.digest else {}
        found[entry.iteration] = IterationNumbers(
            entry.iteration, {**before.metrics, **values}, {**before.artifacts, **digests}
        )
    return [found[index] for index in sorted(found)]


def flat_configuration(text: str) -> dict[str, str]:
    """`training.learningRate` -> `1e-05` for every leaf of a specification in YAML, long texts cut.

    A text that was cut, and is no YAML any more, has no leaves.
    """
    try:
        specification = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return dict(_leaves(specification, ""))


def _leaves(value: Any, path: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, child in value.items():
            yield from _leaves(child, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and value:
        for index, child in enumerate(value):
            yield from _leaves(child, f"{path}.{index}")
    elif path:
        yield path, str(value)[:_LONGEST_VALUE]
