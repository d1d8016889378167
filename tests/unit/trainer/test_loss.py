"""The loss of single tokens and the head in chunks, against the plainest formulas."""

import pytest
import torch

from dynalign_contract.settings import ClipSettings, LossAggregation, TrainingSettings
from dynalign_trainer.train.loss import LossTokens, Normaliser, clipped_ratio, token_losses
from dynalign_trainer.train.measure import measure_tokens
from dynalign_trainer.train.packed import head


def tokens(advantages: list[float], sequences: list[int]) -> LossTokens:
    zeros = torch.zeros(len(advantages))
    return LossTokens(zeros, zeros, torch.tensor(advantages), torch.tensor(sequences))


def logs(ratios: list[float]) -> torch.Tensor:
    return torch.tensor(ratios).log()


@pytest.mark.parametrize(
    ("ratio", "advantage", "dual", "loss"),
    [
        (1.1, 1.0, None, -1.1),
        (2.0, 1.0, None, -1.28),
        (0.5, 1.0, None, -0.5),
        (2.0, -1.0, None, 2.0),
        (0.5, -1.0, None, 0.8),
        (9.0, -1.0, 3.0, 3.0),
        (2.0, -1.0, 3.0, 2.0),
        (9.0, 1.0, 3.0, -1.28),
    ],
)
def test_clip_and_dual_clip(ratio: float, advantage: float, dual: float | None, loss: float) -> None:
    training = TrainingSettings(clip=ClipSettings(dual=dual))
    found = token_losses(logs([ratio]), tokens([advantage], [0]), training)
    assert found.tolist() == pytest.approx([loss])


def test_the_sequence_ratio_is_the_geometric_mean_of_its_tokens() -> None:
    training = TrainingSettings(aggregation=LossAggregation.SEQUENCE_RATIO)
    found = clipped_ratio(logs([2.0, 0.5, 4.0, 3.0]), tokens([1.0] * 4, [0, 0, 0, 1]), training)
    assert found.tolist() == pytest.approx([4 ** (1 / 3)] * 3 + [3.0])


def test_weights_add_up_to_the_means_that_they_stand_for() -> None:
    lengths = [3, 5, 2]
    normaliser = Normaliser(tokens=10, sequences=3, constant=4 * 16)
    sums = {a: sum(n * normaliser.token_weight(a, n) for n in lengths) for a in LossAggregation}
    assert sums.pop(LossAggregation.CONSTANT) == pytest.approx(10 / 64)
    assert list(sums.values()) == pytest.approx([1.0] * 3)


def test_a_token_counts_as_clipped_where_its_gradient_is_gone() -> None:
    ratios, advantages = [2.0, 2.0, 0.5, 0.5, 9.0, 1.0], [1.0, -1.0, 1.0, -1.0, -1.0, 1.0]
    training = TrainingSettings(clip=ClipSettings(dual=3.0))
    logps = logs(ratios).requires_grad_()
    known = tokens(advantages, [0] * 6)
    token_losses(logps, known, training).sum().backward()
    assert logps.grad is not None
    sums = measure_tokens(logps.detach(), torch.zeros(6), known, training)
    assert sums[0] == 6
    assert sums[4] == (logps.grad == 0).sum() == 3
    assert sums[5] == pytest.approx(9.0)


def test_chosen_logprobs_and_their_gradient_are_those_of_whole_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", 3 * 50)
    torch.manual_seed(0)
    hidden, weight = torch.randn(10, 8, dtype=torch.float64), torch.randn(50, 8, dtype=torch.float64)
    targets, outer = torch.randint(50, (10,)), torch.randn(10)
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    logps, entropies = head.chosen_logprobs(ours, weight, targets, 0.7)
    (logps * outer).sum().backward()
    whole = (theirs @ weight.T / 0.7).log_softmax(-1)
    (whole.gather(1, targets[:, None])[:, 0] * outer).sum().backward()
    assert logps.tolist() == pytest.approx(whole.gather(1, targets[:, None])[:, 0].tolist(), abs=1e-5)
    assert entropies.tolist() == pytest.approx((-(whole.exp() * whole).sum(-1)).tolist(), abs=1e-5)
    assert ours.grad is not None
    assert theirs.grad is not None
    assert ours.grad.flatten().tolist() == pytest.approx(theirs.grad.flatten().tolist(), abs=1e-5)
