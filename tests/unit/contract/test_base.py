"""What all models of the contract have in common."""

import pytest

from dynalign_contract.config import Policy


def test_a_copy_changes_fields_only() -> None:
    policy = Policy()
    assert policy.model_copy(update={"version": "iteration-001"}).version == "iteration-001"
    with pytest.raises(TypeError, match="Policy has no field verison"):
        policy.model_copy(update={"verison": "iteration-001"})
    assert policy == Policy()
