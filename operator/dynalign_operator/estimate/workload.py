"""Work of a run's stages in tokens, from its specification and objective."""

from dataclasses import dataclass
from typing import Final

from dynalign_contract.agents import AgentModel, AgentSettings
from dynalign_contract.objective import Objective
from dynalign_contract.settings import (
    OWN_TASKS,
    EvaluationJudge,
    Judge,
    JudgingMethod,
    PanelJudge,
    TrainingBackend,
    TrainingMethod,
    WinRateMethod,
)
from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec

_CHARACTERS_PER_TOKEN: Final = 4.2
_TEMPLATE: Final = 40
"""Tokens that a chat template puts around a prompt."""
_QUESTION: Final = 60
"""Tokens of the judge's question about one aspect, template included."""
_CANARY_KINDS: Final = 8
_TASK_ITEMS: Final = {"dynalign_choices": (72 * 4, 80, 0), "dynalign_instructions": (64, 60, 120)}
"""Requests of dynalign's own tasks, tokens that each reads, tokens that each writes."""
_FOREIGN_ITEMS: Final = (500, 300, 400)
"""Requests, tokens read and tokens written of a task of the harness, whose size is not known here."""


@dataclass(frozen=True)
class Lengths:
    """Mean lengths, in tokens."""

    prompt: float
    answer: float
    longest: int
    """Maximum length of an answer, thought included."""


@dataclass(frozen=True)
class Work:
    """Work of one stage, over all of its pods."""

    stage: Stage
    read: float = 0.0
    """Tokens that engines compute of prompts; those that the prefix cache gives are not among them."""
    written: float = 0.0
    """Tokens that engines sample."""
    sequences: float = 0.0
    """Completions that these tokens belong to."""
    longest: int = 1
    """Maximum length of these completions."""
    context: float = 0.0
    """Mean tokens of a sequence while it is sampled, its prompt among them."""
    batches: int = 0
    """Batches that one pod of a rollout makes up and all of them answer."""
    barrier: float | None = None
    """Sequences of one pod after which the next are begun, on a CPU; None: all at once, as on a GPU always."""
    trained: float = 0.0
    """Tokens that go through one pass of training."""
    passes: float = 0.0
    """Operations for a trained token and weight: 2 a forward pass, 2 or 4 a backward pass."""
    stored: float = 0.0
    """Tokens of the batch that training reads, prompts as often as they have candidates."""
    only_reads: bool = False
    """Whether the engine, if it has no other stages to serve, compiles and captures nothing."""


def lengths_of(spec: AlignmentRunSpec, answer_share: float) -> Lengths:
    """Mean lengths, where answers take `answer_share` of what they may, and prompts what their author may."""
    maximum = spec.prompts.max_tokens
    text = spec.prompts.agents.author.max_tokens if spec.prompts.supplied is None else maximum / 2
    prompt = min(maximum, _TEMPLATE + text)
    longest = spec.generation.completion_tokens
    return Lengths(prompt=prompt, answer=answer_share * longest, longest=longest)


def work_of_iteration(
    spec: AlignmentRunSpec, objective: Objective | None, lengths: Lengths, *, first: bool
) -> dict[Stage, Work]:
    """Work of every stage of an iteration that runs all of them; the first one holds prompts out besides, and answers
    them with the base model."""
    return {
        Stage.PROMPTS: _prompts(spec, objective, lengths, first=first),
        Stage.GENERATE: _generate(spec, lengths),
        Stage.JUDGE: _judge(spec, objective, lengths),
        Stage.TRAIN: _train(spec, lengths),
        Stage.EVALUATE: _evaluate(spec, objective, lengths, first=first),
    }


def _prompts(spec: AlignmentRunSpec, objective: Objective | None, lengths: Lengths, *, first: bool) -> Work:
    supplied = spec.prompts.supplied
    share = 1.0 if supplied is None else 1.0 - supplied.share
    wanted = share * (spec.prompts.per_iteration + (spec.prompts.held_out if first else 0))
    agents = spec.prompts.agents
    drafts = wanted * agents.author.drafts_per_prompt
    length = min(lengths.prompt, agents.author.max_tokens)
    criteria = 3 if objective is None else len(objective.critic.criteria) if objective.critic else 0
    author = drafts if _own(agents.author) else 0.0
    return Work(
        Stage.PROMPTS,
        read=author * 60 + (drafts * (length + criteria * 40) if _own(agents.critic) else 0.0),
        written=author * length,
        sequences=author,
        longest=agents.author.max_tokens,
        context=_rubric(objective) + length / 2,
        batches=int(_own(agents.author)) + int(_own(agents.critic) and criteria > 0),
    )


def _own(agent: AgentSettings) -> bool:
    return agent.model is not AgentModel.ENDPOINT


def _generate(spec: AlignmentRunSpec, lengths: Lengths) -> Work:
    prompts, group = spec.prompts.per_iteration, spec.generation.candidates
    return Work(
        Stage.GENERATE,
        read=prompts * lengths.prompt,
        written=prompts * group * lengths.answer,
        sequences=prompts * group,
        longest=lengths.longest,
        context=lengths.prompt + lengths.answer / 2,
        barrier=spec.generation.prompts_per_part * group,
    )


def _judge(spec: AlignmentRunSpec, objective: Objective | None, lengths: Lengths) -> Work:
    judging, group = spec.judging, spec.generation.candidates
    aspects = 4 if objective is None else len(objective.aspects)
    canaries = judging.canaries.prompts * _CANARY_KINDS + judging.canaries.injections
    second = judging.base_agreement_prompts * group if judging.judge is not Judge.BASE else 0
    answers = spec.prompts.per_iteration * group + canaries + second
    judges = [judging.of(judge) for judge in judging.judges if judge.judge is not PanelJudge.ENDPOINT]
    asked = judges if judging.judges else [judging]
    # the prompt is read once for its group, an answer once for all aspects
    read = spec.prompts.per_iteration * lengths.prompt + answers * (lengths.answer + aspects * _QUESTION)
    votes = [judge for judge in asked if judge.method is JudgingMethod.VOTES]
    reasons = sum(answers * aspects * judge.votes for judge in votes)
    return Work(
        Stage.JUDGE,
        read=read * len(asked),
        written=sum(answers * aspects * judge.votes * judge.rationale_tokens for judge in votes),
        sequences=reasons,
        longest=max((judge.rationale_tokens for judge in votes), default=1),
        context=_rubric(objective) + lengths.prompt + lengths.answer,
        only_reads=judging.only_reads,
    )


def _train(spec: AlignmentRunSpec, lengths: Lengths) -> Work:
    training, group = spec.training, spec.generation.candidates
    shared = training.backend is not TrainingBackend.TRL
    row = lengths.prompt + group * lengths.answer if shared else group * (lengths.prompt + lengths.answer)
    backward = 2 if training.method is TrainingMethod.LORA else 4
    again = 0 if training.gradient_checkpointing is False else 2
    survey = 2 * (2 if training.kl.coefficient > 0 else 1)
    return Work(
        Stage.TRAIN,
        trained=spec.prompts.per_iteration * row,
        passes=training.epochs * (2 + backward + again) + survey,
        stored=spec.prompts.per_iteration * group * (lengths.prompt + lengths.answer),
    )


def _evaluate(spec: AlignmentRunSpec, objective: Objective | None, lengths: Lengths, *, first: bool) -> Work:
    """The first evaluation answers for the base model too; later ones take over what the one before has."""
    settings, prompts = spec.evaluation.win_rate, spec.prompts.held_out
    longest = (settings.max_tokens or spec.generation.max_tokens) + (spec.generation.thinking_tokens or 0)
    answer = min(lengths.answer, longest)
    versions, opponents = (2, 1) if first else (1, 2)
    is_scored = settings.method is WinRateMethod.POINTWISE and not spec.judging.judges  # by the held-out reward
    free = {EvaluationJudge.ENDPOINT, *([EvaluationJudge.BASE] if is_scored else [])}
    judges = sum(judge not in free for judge in settings.judges)
    aspects = 4 if objective is None else len(objective.aspects)
    scored = lengths.prompt + answer + aspects * _QUESTION
    pairwise = 2 * (lengths.prompt + 2 * answer + _QUESTION)
    compared = pairwise if settings.method is WinRateMethod.PAIRWISE else scored
    read = prompts * (versions * (lengths.prompt + scored) + judges * opponents * compared)
    items = written = task_read = 0.0
    for name in spec.evaluation.capability.tasks:
        count, reading, writing = _TASK_ITEMS[name] if name in OWN_TASKS else _FOREIGN_ITEMS
        limit = spec.evaluation.capability.limit
        count = min(count, limit) if limit is not None else count
        items += count if writing else 0
        task_read += count * reading
        written += count * writing
    return Work(
        Stage.EVALUATE,
        read=read + task_read,
        written=prompts * versions * answer + written,
        sequences=prompts * versions + items,
        longest=longest,
        context=lengths.prompt + answer / 2,
    )


def _rubric(objective: Objective | None) -> float:
    """Tokens of preamble and rubric, which every request to the judge begins with; the prefix cache reads them once."""
    if objective is None:
        return 400.0
    texts = [objective.preamble, *(f"{a.definition}{a.low}{a.middle}{a.high}" for a in objective.aspects)]
    return sum(map(len, texts)) / _CHARACTERS_PER_TOKEN
