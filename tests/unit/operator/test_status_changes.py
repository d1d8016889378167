"""`evolve` of the status: what mypy checks at its callers is what the models hold."""

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
