"""The loss of single tokens and the head in chunks, against the plainest formulas."""

import math

import pytest
import torch

from dynalign_contract.errors import UnfitError
from dynalign_contract.settings import ClipSettings, LossAggregation, TrainingSettings
from dynalign_trainer.models.logit_map import LogitMap
from dynalign_trainer.train.loss import LossTokens, Normaliser, clipped_ratio, token_losses
from dynalign_trainer.train.measure import check_change, measure_tokens, summarise_step
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


def test_the_measured_kl_is_that_of_the_policy_though_the_sampler_drew_the_tokens() -> None:
    """Three possible tokens, each weighted as often as the sampler draws it; one has become very unlikely."""
    sampler, policy = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.6, 0.4 - 1e-7, 1e-7])
    base = torch.tensor([0.45, 0.3, 0.25])
    measured = [
        measure_tokens(
            policy[[token]].log(),
            torch.zeros(1),
            LossTokens(sampler[[token]].log(), base[[token]].log(), torch.zeros(1), torch.zeros(1, dtype=torch.long)),
            TrainingSettings(),
        )[1]
        for token in range(3)
    ]
    mean = sum(float(share) * float(kl) for share, kl in zip(sampler, measured, strict=True))
    assert mean == pytest.approx(float((policy * (policy / base).log()).sum()), rel=1e-4)


def test_a_token_that_has_become_impossible_leaves_the_kl_finite() -> None:
    same = torch.tensor([-1.0])
    known = LossTokens(same, same, torch.zeros(1), torch.zeros(1, dtype=torch.long))
    assert float(measure_tokens(torch.tensor([-200.0]), torch.zeros(1), known, TrainingSettings())[1]) == pytest.approx(
        1
    )


def test_a_single_token_that_has_become_likely_does_not_decide_the_kl() -> None:
    """As one of 7,526 in the demo did, whose probability grew from 4e-5 to 0.4."""
    before = torch.tensor([-10.1])
    known = LossTokens(before, before, torch.zeros(1), torch.zeros(1, dtype=torch.long))
    sums = measure_tokens(torch.tensor([-0.9]), torch.zeros(1), known, TrainingSettings())
    assert float(sums[1]) == pytest.approx(10 * (9.2 - 1), rel=1e-3)
    assert float(sums[3]) > 9000, "the ratio itself is told as it is"


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


@pytest.mark.parametrize("is_trained", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("has_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("logit_map", [LogitMap(), LogitMap(scale=0.5), LogitMap(cap=1.5), LogitMap(0.5, 1.5)], ids=str)
def test_chosen_logprobs_and_their_gradients_are_those_of_whole_logits(
    monkeypatch: pytest.MonkeyPatch, is_trained: bool, has_bias: bool, logit_map: LogitMap
) -> None:
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", 3 * 50)
    torch.manual_seed(0)
    hidden = torch.randn(10, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 8, dtype=torch.float64, requires_grad=is_trained)
    bias = torch.randn(50, dtype=torch.float64, requires_grad=is_trained) if has_bias else None
    targets, outer = torch.randint(50, (10,)), torch.randn(10)
    logps, entropies = head.chosen_logprobs(hidden, weight, targets, 0.7, bias=bias, logit_map=logit_map)
    whole = (hidden @ weight.T + (0 if bias is None else bias)) * logit_map.scale
    if logit_map.cap is not None:
        whole = logit_map.cap * (whole / logit_map.cap).tanh()
    plain = (whole / 0.7).log_softmax(-1)
    assert (logps - plain[range(10), targets]).abs().max().item() < 1e-5
    assert (entropies + (plain.exp() * plain).sum(-1)).abs().max().item() < 1e-5
    trained = [tensor for tensor in (hidden, weight, bias) if tensor is not None and tensor.requires_grad]
    found = torch.autograd.grad((logps * outer).sum(), trained)
    wanted = torch.autograd.grad((plain[range(10), targets] * outer).sum(), trained)
    assert all((a - b).abs().max().item() < 1e-5 for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_or_weights_that_are_no_numbers_end_the_training_with_what_to_lower(value: float) -> None:
    words = rf"{value}: training has diverged\. Lower spec\.training\.learningRate or spec\.training\.maxGradNorm"
    with pytest.raises(UnfitError, match=f"the loss of optimiser step 3 is {words}"):
        summarise_step(torch.ones(6, dtype=torch.float64), value, 3)
    with pytest.raises(UnfitError, match=f"the norm of the change of the trained weights is {words}"):
        check_change(value)
