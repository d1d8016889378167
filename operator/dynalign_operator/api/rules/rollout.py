"""Prompts, generate and judge in one Job."""

from typing import Final

from pydantic.alias_generators import to_camel

from dynalign_contract.stages import ROLLOUT_STAGES, Stage
from dynalign_operator.api.pods import Resources, StageOverrides
from dynalign_operator.api.rules.rule import Rule
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec, Rollout


def _is_unset(path: str) -> str:
    """The CEL that says that nothing is overridden for a stage."""
    terms = []
    for name, field in StageOverrides.model_fields.items():
        if field.default is None:
            terms.append(f"!has({path}.{to_camel(name)})")
        elif name != "resources":
            terms.append(f"size({path}.{to_camel(name)}) == 0")
    terms += [f"size({path}.resources.{name}) == 0" for name in Resources.model_fields]
    return " && ".join(terms)


def _refuse(stage: Stage) -> Rule:
    def holds(spec: AlignmentRunSpec) -> bool:
        return spec.rollout is not Rollout.FUSED or getattr(spec.stages, stage) == StageOverrides()

    return Rule(
        at="spec",
        field=f"stages.{stage}",
        cel=f"self.rollout != 'Fused' || ({_is_unset(f'self.stages.{stage}')})",
        message="says where a Job runs that is not created with rollout: Fused; move it to stages.rollout, or set "
        "rollout to Separate or Auto",
        holds=holds,
    )


ROLLOUT_RULES: Final = tuple(map(_refuse, ROLLOUT_STAGES))
