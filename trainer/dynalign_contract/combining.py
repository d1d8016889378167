"""Joins the metrics of a stage's shards into those of the stage, by their definitions. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dynalign_contract.metrics import AcrossShards, MetricDef, find_definition
from dynalign_contract.result import Metric, StageResult
from dynalign_contract.stages import Stage


def combine_metrics(stage: Stage, results: Sequence[StageResult]) -> tuple[Metric, ...]:
    """One metric for each name that any of the shards' results has, in the order of the first shards' results.

    A number that no shard has, or that no float holds, is absent. A metric that this version does not define is
    averaged.
    """
    by_shard = [{metric.name: metric.value for metric in result.metrics} for result in results]
    names = dict.fromkeys(name for values in by_shard for name in values)
    return tuple(Metric(name=name, value=_combine(stage, name, results, by_shard)) for name in names)


def _combine(
    stage: Stage, name: str, results: Sequence[StageResult], by_shard: Sequence[Mapping[str, float | None]]
) -> float | None:
    definition = find_definition(stage, name)
    pairs = list(_weighted(name, definition, results, by_shard))
    if not pairs:
        return None
    match definition.across_shards if definition else AcrossShards.MEAN:
        case AcrossShards.SUM:
            value = sum(number for number, _ in pairs)
        case AcrossShards.MAX:
            value = max(number for number, _ in pairs)
        case AcrossShards.MEAN:
            whole = sum(weight for _, weight in pairs)
            value = sum(number * (weight / whole) for number, weight in pairs)
    return value if math.isfinite(value) else None


def _weighted(
    name: str,
    definition: MetricDef[Any] | None,
    results: Sequence[StageResult],
    by_shard: Sequence[Mapping[str, float | None]],
) -> Iterator[tuple[float, float]]:
    """Value and weight of each shard that has the number."""
    for result, values in zip(results, by_shard, strict=True):
        number = values.get(name)
        if number is None:
            continue
        rows = max(1, result.artifact.rows) if result.artifact else 1
        weight = values.get(definition.weight.name) if definition and definition.weight else None
        yield number, weight if weight is not None and weight > 0 else rows
