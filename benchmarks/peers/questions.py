"""The judge's questions of every contender: dynalign's own texts, answered by whatever the contender uses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.plan import OBJECTIVE, Plan
from dynalign_contract.config import JudgeParams, Policy, StageConfig
from dynalign_contract.objective import builtin_objective
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.engine_model import EngineModel
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.scoring.contexts import Candidate
from dynalign_trainer.scoring.pointwise import PointwiseJudge
from lab.stage_attempts import attempt

Answer = Callable[[Sequence[Sequence[int]], Sequence[int]], list[list[float]]]
"""Log-probabilities of these tokens as the next one of each question; shape (questions, tokens)."""


@dataclass
class PeerEngine:
    """What stands in the place of dynalign's engine: a tokenizer, and a contender's way to answer questions."""

    chat: ChatTemplate
    max_length: int
    answer: Answer
    asked: list[list[int]] = field(default_factory=list)
    """Tokens of every question so far."""

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.chat.tokenizer

    def score_next(self, prompts: Sequence[Sequence[int]], tokens: Sequence[int], **_: object) -> list[list[float]]:
        """Keep the questions, and have them answered."""
        self.asked += map(list, prompts)
        return self.answer(prompts, tokens)

    def forget_prefixes(self) -> None:
        """Nothing is kept between calls that could change an answer."""


@dataclass(frozen=True)
class Judged:
    """Rewards of candidates, and how they came about."""

    rewards: list[float]
    questions: list[list[int]]
    """Tokens of every question."""


def judge_candidates(plan: Plan, tokenizer: Any, candidates: Sequence[Candidate], answer: Answer) -> Judged:
    """Rewards of candidates, those of a prompt adjacent, by the questions that dynalign's judge stage asks."""
    engine = PeerEngine(ChatTemplate(tokenizer), plan.engine.max_length or tokenizer.model_max_length, answer)
    model = EngineModel(engine, Policy())  # type: ignore[arg-type]
    judge = PointwiseJudge(model, builtin_objective(OBJECTIVE), plan.judging, seed=judge_context(plan).seed)
    return Judged([score.reward for score in judge.score(candidates)], engine.asked)


def judge_context(plan: Plan) -> StageContext[JudgeParams]:
    """The judge stage's context: the delimiters around quoted texts are drawn from its seed."""
    params = JudgeParams(
        objective=builtin_objective(OBJECTIVE),
        judging=plan.judging,
        max_tokens=plan.generation.max_tokens,
        prompts_per_part=plan.generation.prompts_per_part,
    )
    config = StageConfig(run="peer", iteration=0, seed=plan.seed, engine=plan.engine, params=params)
    return attempt(config, Path())
