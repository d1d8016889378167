"""The definition of a metric: name, stage, unit and meaning, how shards are joined, how the operator exports it.

A metric is an attribute of a `StageMetrics` class, and the attribute's name is the metric's name: stages fill their
results by these definitions and readers look values up by them, so that a metric that is renamed or removed is an error
of the type checker wherever it is used. The type parameter is the class of the stage's parameters: a stage whose
`StageOutput[JudgeParams]` holds a metric of another stage does not type-check.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Final, Generic, TypeAlias, TypeVar

from dynalign_contract.estimate import Estimate
from dynalign_contract.result import MEMBER_SEPARATOR
from dynalign_contract.stages import Stage

P = TypeVar("P")


class AcrossShards(StrEnum):
    """How the values of a stage's shards are joined."""

    MEAN = "mean"
    """Mean, weighted by `MetricDef.weight`."""
    SUM = "sum"
    MAX = "max"


class Unit(StrEnum):
    """Unit of a metric's values."""

    SHARE = "share, 0 to 1"
    REWARD = "reward, 0 to 1"
    COUNT = "count"
    TOKENS = "tokens"
    TOKENS_PER_SECOND = "tokens a second"
    SECONDS = "seconds"
    BYTES = "bytes"
    NATS = "nats"
    POINTS = "points"
    FLAG = "1 or 0"
    PLAIN = "number"


@dataclass(frozen=True)
class Export:
    """How the operator serves a metric at `/metrics`: as the gauge `dynalign_run_NAME` with the latest value."""

    name: str = ""
    """Name without the prefix `dynalign_run_`; empty: the metric's own."""
    by_stage: bool = False
    """Whether several stages share the gauge, told apart by the label `stage`."""
    text: str = ""
    """Help text; empty: the metric's own and the name of its stage."""


@dataclass(frozen=True)
class MetricDef(Generic[P]):
    """One number that a stage reports. Equal to another if stage and name are equal."""

    unit: Unit = field(compare=False)
    text: str = field(compare=False)
    across_shards: AcrossShards = field(default=AcrossShards.MEAN, compare=False)
    weight: "MetricDef[P] | None" = field(default=None, compare=False)
    """Metric of the same result that weights a mean over shards; None: the rows of the shard's artifact."""
    export: Export | None = field(default=None, compare=False)
    """None: not exported."""
    name: str = field(default="", kw_only=True)
    member: str = field(default="", compare=False, kw_only=True)
    """Member of a family, such as the id of an aspect; empty for a single metric."""
    stage: Stage = field(init=False)

    @property
    def export_name(self) -> str | None:
        """Name of the gauge without the prefix `dynalign_run_`, the same for all members; None if not exported."""
        return None if self.export is None else self.export.name or self.name.partition(MEMBER_SEPARATOR)[0]

    def __set_name__(self, owner: "type[StageMetrics]", name: str) -> None:
        """Take the stage from the class and the name from the attribute (without a trailing `_`)."""
        object.__setattr__(self, "stage", owner.stage)
        object.__setattr__(self, "name", self.name or name.removesuffix("_"))


MetricValues: TypeAlias = dict[MetricDef[P], float | None]
"""Metric -> value of a stage whose parameters are of the class P; None where the number is not defined."""


@dataclass(frozen=True)
class MetricFamily(Generic[P]):
    """A metric that has a value for each member of a set that the user chooses, named `family/member`."""

    member: str
    """What the members are, such as `aspect`."""
    each: MetricDef[P]
    """Definition of every member but for its name."""

    def __set_name__(self, owner: "type[StageMetrics]", name: str) -> None:
        """Take stage and name as a `MetricDef` does."""
        self.each.__set_name__(owner, name)

    @property
    def name(self) -> str:
        """Name of the family."""
        return self.each.name

    def of(self, member: str) -> MetricDef[P]:
        """Definition of a member's metric."""
        found = replace(self.each, name=f"{self.name}{MEMBER_SEPARATOR}{member}", member=member)
        object.__setattr__(found, "stage", self.each.stage)
        return found

    def members(self, values: Mapping[MetricDef[Any], float]) -> dict[str, float]:
        """Member -> value for the family's metrics among `values`, in their order."""
        prefix = f"{self.name}{MEMBER_SEPARATOR}"
        return {
            metric.member: value
            for metric, value in values.items()
            if metric.stage is self.each.stage and metric.name.startswith(prefix)
        }


@dataclass(frozen=True)
class IntervalDef(Generic[P]):
    """A metric with a confidence interval: three metrics `NAME`, `NAME_low` and `NAME_high` of a stage's result."""

    unit: Unit
    text: str
    export: Export | None = None
    exports_interval: bool = False
    """Whether the ends of the interval are exported too."""
    value: MetricDef[P] = field(init=False)
    low: MetricDef[P] = field(init=False)
    high: MetricDef[P] = field(init=False)

    def __set_name__(self, owner: "type[StageMetrics]", name: str) -> None:
        """Define the three metrics."""
        ends = self.export if self.exports_interval else None
        for part, suffix, text, export in (
            ("value", "", self.text, self.export),
            ("low", "_low", f"Lower end of the confidence interval of {name}.", ends),
            ("high", "_high", f"Upper end of the confidence interval of {name}.", ends),
        ):
            metric = MetricDef[P](self.unit, text, export=export)
            metric.__set_name__(owner, f"{name}{suffix}")
            object.__setattr__(self, part, metric)

    @property
    def parts(self) -> tuple[MetricDef[P], MetricDef[P], MetricDef[P]]:
        """The metrics of value, lower and upper end."""
        return self.value, self.low, self.high

    def split(self, estimate: Estimate | None) -> MetricValues[P]:
        """The three metrics of an estimate; of None, metrics without a value."""
        if estimate is None:
            return dict.fromkeys(self.parts)
        return dict(zip(self.parts, (estimate.value, estimate.low, estimate.high), strict=True))

    def join(self, values: Mapping[MetricDef[Any], float]) -> Estimate | None:
        """The estimate among `values`; None if its value is absent. Its ends are absent if either end is."""
        value, low, high = (values.get(part) for part in self.parts)
        if value is None:
            return None
        return Estimate(value=value) if low is None or high is None else Estimate(value=value, low=low, high=high)


@dataclass(frozen=True)
class IntervalFamily(Generic[P]):
    """A metric with a confidence interval for each member of a set: the families `NAME`, `NAME_low` and `NAME_high`."""

    member: str
    """What the members are, such as `verifier`."""
    unit: Unit
    text: str
    export: Export | None = None
    value: MetricFamily[P] = field(init=False)
    low: MetricFamily[P] = field(init=False)
    high: MetricFamily[P] = field(init=False)

    def __set_name__(self, owner: "type[StageMetrics]", name: str) -> None:
        """Define the three families."""
        for part, suffix, text, export in (
            ("value", "", self.text, self.export),
            ("low", "_low", f"Lower end of the confidence interval of {name}.", None),
            ("high", "_high", f"Upper end of the confidence interval of {name}.", None),
        ):
            family = MetricFamily(self.member, MetricDef[P](self.unit, text, export=export))
            family.__set_name__(owner, f"{name}{suffix}")
            object.__setattr__(self, part, family)

    @property
    def parts(self) -> "tuple[MetricFamily[P], MetricFamily[P], MetricFamily[P]]":
        """The families of value, lower and upper end."""
        return self.value, self.low, self.high

    def split(self, member: str, estimate: Estimate | None) -> MetricValues[P]:
        """The three metrics of a member's estimate; of None, metrics without a value."""
        ends = (None,) * 3 if estimate is None else (estimate.value, estimate.low, estimate.high)
        return {family.of(member): end for family, end in zip(self.parts, ends, strict=True)}

    def members(self, values: Mapping[MetricDef[Any], float]) -> dict[str, Estimate]:
        """Member -> estimate among `values`; its ends are absent if either end is."""
        lows, highs = self.low.members(values), self.high.members(values)
        return {
            member: Estimate(value=value, low=lows[member], high=highs[member])
            if member in lows and member in highs
            else Estimate(value=value)
            for member, value in self.value.members(values).items()
        }


class StageMetrics:
    """All metrics of one stage: a subclass sets `stage` first and then has an attribute for each metric."""

    stage: ClassVar[Stage]
    start_seconds: ClassVar[MetricDef[Any]]
    """Every stage has this one."""
    useful_seconds: ClassVar[MetricDef[Any]]
    """The stages of an iteration report it."""
    preserved_seconds: ClassVar[MetricDef[Any]]
    """The stages of an iteration report it."""

    def __init_subclass__(cls) -> None:
        """Add the metrics that every stage has."""
        cls.start_seconds = MetricDef(
            Unit.SECONDS,
            "From the process's start to its first useful work, the slowest shard's.",
            AcrossShards.MAX,
            export=_START,
        )
        cls.start_seconds.__set_name__(cls, "start_seconds")
        cls.useful_seconds = MetricDef(
            Unit.SECONDS,
            "Time in which the attempt sampled, judged, trained or evaluated, all shards together.",
            AcrossShards.SUM,
        )
        cls.useful_seconds.__set_name__(cls, "useful_seconds")
        cls.preserved_seconds = MetricDef(
            Unit.SECONDS,
            "Such time of earlier attempts whose parts or checkpoint the attempt has kept, all shards together.",
            AcrossShards.SUM,
        )
        cls.preserved_seconds.__set_name__(cls, "preserved_seconds")

    @classmethod
    def times(cls) -> tuple[MetricDef[Any], ...]:
        """What each pod reports of its own time."""
        return cls.start_seconds, cls.useful_seconds, cls.preserved_seconds

    @classmethod
    def families(cls) -> dict[str, MetricFamily[Any]]:
        """Name -> family, those of intervals one by one."""
        return {family.name: family for family in cls._families()}

    @classmethod
    def singles(cls) -> dict[str, MetricDef[Any]]:
        """Name -> metric, without families, those of intervals one by one."""
        return {metric.name: metric for metric in cls._singles()}

    @classmethod
    def _families(cls) -> Iterator[MetricFamily[Any]]:
        for attribute in vars(cls).values():
            if isinstance(attribute, MetricFamily):
                yield attribute
            elif isinstance(attribute, IntervalFamily):
                yield from attribute.parts

    @classmethod
    def _singles(cls) -> Iterator[MetricDef[Any]]:
        for attribute in vars(cls).values():
            if isinstance(attribute, MetricDef):
                yield attribute
            elif isinstance(attribute, IntervalDef):
                yield from attribute.parts


_START: Final = Export(
    "stage_start_seconds",
    by_stage=True,
    text="From a stage's process start to its first useful work, latest finished stage.",
)

TOKENS_PER_SECOND_EXPORT: Final = Export(
    by_stage=True,
    text="Tokens read or written a second by all shards together: current while the stage runs, average after it.",
)
"""Shared by all stages that report `tokens_per_second`."""
