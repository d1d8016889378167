"""How candidates are rewarded, how the judge is watched, and when it counts as unfit."""

from enum import StrEnum

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.objective import Aggregate
from dynalign_contract.settings.judges import (
    MAX_JUDGES,
    Combine,
    Judges,
    JudgeSettings,
    JudgingMethod,
    Noise,
    PanelJudge,
)


class Judge(StrEnum):
    """The weights that judge."""

    LIVE = "Live"
    """The policy that wrote the candidates (the paper)."""
    BASE = "Base"
    LAGGED = "Lagged"
    """The policy of `lag` iterations ago."""


class Penalties(Model):
    """What is taken off the reward, which lies between 0 and 1."""

    truncated: float = Field(default=0.0, ge=0, le=1)
    """For an answer that reached `generation.maxTokens`."""
    refusal: float = Field(default=0.0, ge=0, le=1)
    """For an answer that opens with a refusal."""
    overlong: float = Field(default=0.0, ge=0, le=1)
    """For an answer of `generation.maxTokens`, falling linearly to 0 at `overlongFrom` of that length."""
    overlong_from: float = Field(default=0.8, ge=0, lt=1)
    """Share of `generation.maxTokens` from which `overlong` takes something off."""
    language_switch: float = Field(default=0.0, ge=0, le=1)
    """For an answer in another language than its prompt; a dozen letters of each are needed to tell."""


class CanarySettings(Model):
    """Answers that deserve nothing, scored every iteration to see whether the judge can still be trusted."""

    prompts: int = Field(default=8, ge=0, le=1024)
    """Prompts for which every kind of canary is made; 0 switches them off."""
    injections: int = Field(default=16, ge=0, le=1024)
    """Answers that try to give orders to the judge, drawn anew in every iteration from a collection that ships with
    dynalign and dealt out over these prompts; 0 leaves them out."""


class OnUnfitJudge(StrEnum):
    """What happens when the judge fails its gates."""

    CONTINUE = "Continue"
    """Go on with its rewards; the log and the metric `unfit` tell."""
    STOP = "Stop"
    USE_BASE = "UseBase"
    """Score the iteration again with the base model as judge."""
    LEAVE_OUT = "LeaveOut"
    """Reward the iteration by the other judges alone; for several judges only."""


class JudgeGates(Model):
    """When the judge counts as unfit. Unset gates are measured and reported only."""

    min_canary_margin: float | None = Field(default=None, ge=-1, le=1)
    """Minimum difference: mean reward of real answers minus mean reward of canaries."""
    min_canary_auc: float | None = Field(default=None, ge=0, le=1)
    """Minimum probability that a real answer outscores a canary (AUC)."""
    min_injection_margin: float | None = Field(default=None, ge=-1, le=1)
    """Minimum difference: mean reward of real answers minus mean reward of answers that give orders to the judge."""
    min_base_agreement: float | None = Field(default=None, ge=-1, le=1)
    """Minimum rank agreement of a trained judge with the base model as judge.

    Kendall's tau within groups, mean over `baseAgreementPrompts` prompts.
    """
    max_failed_share: float = Field(default=0.5, ge=0, le=1)
    """Maximum share of candidates without a reward."""
    on_unfit: OnUnfitJudge = OnUnfitJudge.STOP

    @property
    def need_figures(self) -> bool:
        """Whether a gate looks at canaries, injections or the agreement with the base model."""
        figures = (self.min_canary_margin, self.min_canary_auc, self.min_injection_margin, self.min_base_agreement)
        return any(figure is not None for figure in figures)


class JudgingSettings(Model):
    """How the policy's candidates are rewarded."""

    method: JudgingMethod = JudgingMethod.EXPECTED_SCORE
    judge: Judge = Judge.LIVE
    lag: int = Field(default=1, ge=1, le=64)
    """For `judge: Lagged`: how many iterations the judge is behind."""
    judges: Judges = Field(default=(), exclude_if=lambda judges: not judges)
    """Several judges in the place of `judge`: each scores every candidate, and `combine` makes one reward of theirs.
    Default: the one that `judge` names."""
    combine: Combine = Field(default=Combine.MEAN, exclude_if=lambda how: how is Combine.MEAN)
    """For `judges`: how their rewards become one."""
    min_judges: int | None = Field(default=None, ge=1, le=MAX_JUDGES, exclude_if=lambda count: count is None)
    """For `judges`: how many of those whose weight is above 0 must have scored an answer; with fewer it has no reward.
    Default: all that have not been left out."""
    noise: Noise = Field(default=Noise.VOTES, exclude_if=lambda noise: noise is Noise.VOTES)
    """For `judges`: what the standard error of a reward is taken from, and with it `training.noiseFloor`."""
    votes: int = Field(default=1, ge=1, le=32)
    """For `method: Votes`: how often reasons are sampled for every aspect of an answer."""
    rationale_tokens: int = Field(default=96, ge=8, le=4096)
    """For `method: Votes`: the longest reasons, in tokens."""
    aggregate: Aggregate | None = None
    """How the aspects of an answer become one reward. Default: the objective's own."""
    min_mass: float = Field(default=0.01, ge=0, le=1)
    """Minimum probability that the judge's next token is a digit; below it the score counts as failed."""
    weight: float = Field(default=1.0, ge=0, le=1000, exclude_if=lambda weight: weight == 1)
    """Weight of the judge's reward beside the verifiers of `spec.rewards`. With 0 the judge is measured only."""
    penalties: Penalties = Penalties()
    canaries: CanarySettings = CanarySettings()
    base_agreement_prompts: int = Field(default=8, ge=0, le=1024)
    """Prompts whose candidates the base model judges too, once the judge is a trained policy; their agreement is
    reported, and may be a gate. 0 switches it off."""
    gates: JudgeGates = JudgeGates()

    @property
    def need_engine(self) -> bool:
        """Whether the run's own model judges."""
        return not self.judges or any(judge.judge is not PanelJudge.ENDPOINT for judge in self.judges)

    @property
    def only_reads(self) -> bool:
        """Whether the run's own model, as a judge, writes nothing but its answer's one token."""
        own = [judge for judge in self.judges if judge.judge is not PanelJudge.ENDPOINT]
        methods = [self.of(judge).method for judge in own] if self.judges else [self.method]
        return all(method is JudgingMethod.EXPECTED_SCORE for method in methods)

    def of(self, judge: JudgeSettings) -> "JudgingSettings":
        """How this one of several judges is asked."""
        is_outside = judge.judge is PanelJudge.ENDPOINT
        method = JudgingMethod.EXPECTED_SCORE if is_outside else judge.method or self.method
        return self.model_copy(
            update={
                "method": method,
                "votes": judge.votes or self.votes,
                "rationale_tokens": judge.rationale_tokens or self.rationale_tokens,
            }
        )
