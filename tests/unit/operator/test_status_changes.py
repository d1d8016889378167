"""Changes of a status: the types that mypy checks are those of the models, and stored names of before are read."""

from typing import Any, get_type_hints

import pytest
from pydantic import BaseModel

from dynalign_operator.api.status import (
    AlignmentRunStatus,
    IterationChanges,
    IterationStatus,
    StageChanges,
    StageStatus,
    StatusChanges,
)

MODELS = [(StageStatus, StageChanges), (IterationStatus, IterationChanges), (AlignmentRunStatus, StatusChanges)]


@pytest.mark.parametrize(("model", "changes"), MODELS, ids=lambda kind: kind.__name__)
def test_the_changes_have_the_fields_of_the_model_and_their_types(model: type[BaseModel], changes: Any) -> None:
    assert get_type_hints(changes) == {name: field.annotation for name, field in model.model_fields.items()}


def test_evolve_replaces_the_named_fields_and_keeps_the_others() -> None:
    status = AlignmentRunStatus(progress="1/2")
    assert status.evolve(iteration=1) == AlignmentRunStatus(progress="1/2", iteration=1)


@pytest.mark.parametrize("name", ["redo", "verifyAgain"])
def test_a_stored_mark_for_verification_is_read_under_its_name_of_version_0_1_0(name: str) -> None:
    assert StageStatus.model_validate({"stage": "train", name: True}).verify_again
    assert '"verifyAgain":true' in StageStatus.model_validate({"stage": "train", name: True}).to_json()
