"""Log-probabilities that are no numbers: who gave them, and what to do."""

import math

import pytest

from dynalign_contract.config import Policy
from dynalign_contract.errors import BadInputError
from dynalign_trainer.models.broken_numbers import refuse_infinite, refuse_nan

BASE, TRAINED = Policy(), Policy(version="iteration-002")
WORDS = {
    BASE.version: "the base model gives a token .*config.json does not belong to them.*Restore the model's files",
    TRAINED.version: "the policy iteration-002 gives a token .*training has diverged.*lower spec.training.learningRate",
}


@pytest.mark.parametrize("policy", [BASE, TRAINED], ids=lambda policy: policy.version)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_token_that_was_drawn_has_a_finite_one(value: float, policy: Policy) -> None:
    refuse_infinite([0.0, -80.0], policy)
    with pytest.raises(BadInputError, match=WORDS[policy.version]) as caught:
        refuse_infinite([-0.5, value], policy)
    assert f"log-probability {value}" in str(caught.value)


def test_a_token_that_was_only_asked_about_may_be_impossible() -> None:
    refuse_nan([-0.5, -math.inf], BASE)
    with pytest.raises(BadInputError, match=WORDS["base"]):
        refuse_nan([-0.5, math.nan], BASE)
