"""What an update may not change."""

from typing import Final

from dynalign_operator.api.rules.rule import Transition


def _immutable(at: str) -> Transition:
    return Transition(
        at=at,
        cel="self == oldSelf",
        message="cannot be changed once the run exists; apply a run of another name instead",
        holds=lambda old, new: bool(old == new),
    )


TRANSITIONS: Final = (
    _immutable("spec.model"),
    _immutable("spec.objective"),
    _immutable("spec.storage"),
    Transition(
        at="spec.iterations",
        cel="self >= oldSelf",
        message="may be raised but not lowered, for the run may have done them; set spec.suspend to stop it",
        holds=lambda old, new: bool(new >= old),
    ),
)
