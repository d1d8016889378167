"""The order of steps: each once in every epoch, the first as the batch has them."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.settings import TrainingSettings
from dynalign_trainer.train.batch import build_batch
from dynalign_trainer.train.epochs import order_steps
from support.training_data import make_judgements, make_rollouts


@given(st.integers(0, 12), st.integers(1, 16), st.integers(0, 9))
def test_every_epoch_takes_every_step_once_and_the_first_in_the_order_of_the_batch(
    steps: int, epochs: int, seed: int
) -> None:
    order = order_steps(steps, epochs=epochs, seed=seed)
    assert order[:steps] == tuple(range(steps))
    for epoch in range(epochs):
        assert Counter(order[epoch * steps : (epoch + 1) * steps]) == Counter(range(steps))


def test_later_epochs_have_an_order_of_their_own_by_the_seed() -> None:
    first, second, third = (order_steps(12, epochs=3, seed=1)[i : i + 12] for i in (0, 12, 24))
    assert len({first, second, third}) == 3
    assert order_steps(12, epochs=3, seed=1) != order_steps(12, epochs=3, seed=2)


def test_an_epoch_more_leaves_the_steps_before_it_as_they_were() -> None:
    assert order_steps(5, epochs=4, seed=3)[:15] == order_steps(5, epochs=3, seed=3)


def test_epochs_repeat_no_row_of_the_batch() -> None:
    rollouts = make_rollouts(4, 3)
    once, thrice = (
        build_batch(rollouts, make_judgements(rollouts), TrainingSettings(epochs=epochs), policy="base", seed=0)
        for epochs in (1, 3)
    )
    assert (thrice.rows, thrice.steps, thrice.loss_tokens) == (once.rows, once.steps, once.loss_tokens)
    assert thrice.epochs == 3


def test_one_epoch_is_left_out_of_what_a_digest_is_taken_of() -> None:
    assert "epochs" not in TrainingSettings().to_json()
    assert TrainingSettings.model_validate_json(TrainingSettings(epochs=3).to_json()).epochs == 3
