"""Which nodes a stage's pods want, with the names and the meaning of Kubernetes' own fields."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, WithJsonSchema, model_validator

from dynalign_contract.base import Model
from dynalign_contract.names import LabelValue, QualifiedName

Values = Annotated[tuple[LabelValue, ...], Field(max_length=64)]
Weight = Annotated[int, Field(ge=1, le=100)]


class ExpressionOperator(StrEnum):
    """How the value of a label is compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    """For labels of nodes only."""
    LT = "Lt"
    """For labels of nodes only."""


class Requirement(Model):
    """A condition on one label."""

    key: QualifiedName
    operator: ExpressionOperator
    values: Values = ()
    """One or more for In and NotIn, one number for Gt and Lt, none for Exists and DoesNotExist."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        count = len(self.values)
        match self.operator:
            case ExpressionOperator.IN | ExpressionOperator.NOT_IN:
                fits = count > 0
            case ExpressionOperator.GT | ExpressionOperator.LT:
                fits = count == 1
            case _:
                fits = count == 0
        if not fits:
            raise ValueError(
                f"{self.operator} with {count} values; In and NotIn need one or more, Gt and Lt one number, Exists and "
                "DoesNotExist none"
            )
        return self


class NodeTerm(Model):
    """Conditions that a node meets all of."""

    match_expressions: tuple[Requirement, ...] = Field(default=(), max_length=16)


class NodeTerms(Model):
    """Terms of which a node meets at least one."""

    node_selector_terms: tuple[NodeTerm, ...] = Field(default=(), max_length=8)


class PreferredNodes(Model):
    """Nodes that the scheduler prefers."""

    weight: Weight
    preference: NodeTerm


class NodeAffinity(Model):
    """Nodes by their labels."""

    required_during_scheduling_ignored_during_execution: NodeTerms | None = None
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredNodes, ...] = Field(default=(), max_length=8)


class LabelSelector(Model):
    """Pods by their labels."""

    match_labels: dict[QualifiedName, LabelValue] = Field(default={}, max_length=16)
    match_expressions: tuple[Requirement, ...] = Field(default=(), max_length=16)


class PodTerm(Model):
    """Pods of the run's namespace, and the domain of nodes that is shared with them or not."""

    label_selector: LabelSelector
    topology_key: QualifiedName
    """Label of nodes whose value is the domain, for example `kubernetes.io/hostname`."""


class PreferredPods(Model):
    """Pods near which, or away from which, the scheduler prefers to go."""

    weight: Weight
    pod_affinity_term: PodTerm


class PodAffinity(Model):
    """Nodes by the pods that run there."""

    required_during_scheduling_ignored_during_execution: tuple[PodTerm, ...] = Field(default=(), max_length=8)
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredPods, ...] = Field(default=(), max_length=8)


class Affinity(Model):
    """Nodes that a pod must have or prefers: Kubernetes' `affinity`."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


FreeAffinity = Annotated[Affinity, WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]
"""An affinity whose fields the CustomResourceDefinition leaves to Kubernetes: seven stages would make it too large."""


class WhenUnsatisfiable(StrEnum):
    """What happens to a pod for which no node keeps a spread."""

    DO_NOT_SCHEDULE = "DoNotSchedule"
    SCHEDULE_ANYWAY = "ScheduleAnyway"


class TopologySpread(Model):
    """How evenly the pods of one Job are spread: Kubernetes' `topologySpreadConstraints`, whose selector is the Job."""

    topology_key: QualifiedName
    """Label of nodes whose value is the domain, for example `topology.kubernetes.io/zone`."""
    max_skew: int = Field(default=1, ge=1, le=256)
    """Pods that one domain may have more than another."""
    when_unsatisfiable: WhenUnsatisfiable = WhenUnsatisfiable.DO_NOT_SCHEDULE
