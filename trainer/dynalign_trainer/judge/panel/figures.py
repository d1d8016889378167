"""How far a judge of a panel, or all of them together, can be trusted. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dynalign_contract.settings import JudgeGates
from dynalign_trainer.judge.canaries import CanaryKind
from dynalign_trainer.judge.groups import RolloutGroup
from dynalign_trainer.judge.panel.questions import Key, Questions, keys_of
from dynalign_trainer.judge.trust import CanaryTrust, canary_trust, find_unfitness, kendall_tau, mean_offset
from dynalign_trainer.scoring.combining import CombinationRule
from dynalign_trainer.scoring.scores import mean_of


@dataclass(frozen=True)
class Rewards:
    """Rewards by one judge, or by all together; NaN where there is none."""

    of: Mapping[Key, float]
    """Rewards of the shard's candidates, and of the groups of shard 0 that it looks at."""
    canaries: Sequence[float]
    """In the order of the questions' canaries."""


@dataclass(frozen=True)
class Figures:
    """Measurements of one judge, or of all together."""

    failed_share: float
    """Share of the shard's own candidates without a reward."""
    canaries: CanaryTrust | None
    """None where this shard has no canaries to judge."""
    injections: CanaryTrust | None
    agreement: float | None
    """Kendall's tau with the base model as judge; None where that is the judge, or is not asked."""
    offset: float | None
    """Mean reward minus the base model's."""

    def refusal(self, gates: JudgeGates, *, decides: bool) -> str | None:
        """Which gates refuse, as a clause; None where none does. A shard that does not decide gates failures alone."""
        return find_unfitness(
            gates,
            failed_share=self.failed_share,
            canaries=self.canaries,
            injections=self.injections,
            agreement=self.agreement if decides else None,
        )


def measure(questions: Questions, rewards: Rewards, base: Mapping[Key, float] | None) -> Figures:
    """The figures of these rewards; `base` has the base model's of the compared groups, None without a comparison."""
    own = [rewards.of[key] for group in questions.own for key in keys_of(group)]
    real = [rewards.of[key] for group in questions.canary_groups for key in keys_of(group)]
    orders = [
        reward
        for canary, reward in zip(questions.canaries, rewards.canaries, strict=True)
        if canary.kind is CanaryKind.INJECTED
    ]
    mine, theirs = ([], []) if base is None else _pair(questions.compared, rewards.of, base)
    return Figures(
        failed_share=sum(map(math.isnan, own)) / len(own),
        canaries=canary_trust(real, rewards.canaries) if questions.canaries else None,
        injections=canary_trust(real, orders) if orders else None,
        agreement=mean_tau(mine, theirs) if mine else None,
        offset=mean_offset([r for group in mine for r in group], [r for group in theirs for r in group])
        if mine
        else None,
    )


def combine(rule: CombinationRule, judges: Mapping[str, Rewards]) -> Rewards:
    """The combined rewards of several judges (judge -> its rewards)."""
    keys = next(iter(judges.values())).of
    canaries = zip(*(rewards.canaries for rewards in judges.values()), strict=True)
    return Rewards(
        of={key: rule.reward({name: rewards.of[key] for name, rewards in judges.items()}) for key in keys},
        canaries=[rule.reward(dict(zip(judges, given, strict=True))) for given in canaries],
    )


def agreement_with_others(name: str, judges: Mapping[str, Rewards], groups: Sequence[Sequence[Key]]) -> float:
    """Kendall's tau within groups between a judge and the mean reward of the others, averaged over groups."""
    others = [rewards for other, rewards in judges.items() if other != name]
    mine = [[judges[name].of[key] for key in keys] for keys in groups]
    return mean_tau(mine, [[mean_of(rewards.of[key] for rewards in others) for key in keys] for keys in groups])


def mean_tau(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float:
    """Kendall's tau within groups, averaged over those where it is defined."""
    return mean_of(kendall_tau(x, y) for x, y in zip(a, b, strict=True))


def _pair(
    groups: Sequence[RolloutGroup], first: Mapping[Key, float], second: Mapping[Key, float]
) -> tuple[list[list[float]], list[list[float]]]:
    """Both rewards of the candidates of these groups; shape (groups, candidates)."""
    keys = [keys_of(group) for group in groups]
    return [[first[key] for key in group] for group in keys], [[second[key] for key in group] for group in keys]
