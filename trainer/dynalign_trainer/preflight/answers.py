"""Whether the tokenizer writes the answers to an objective's questions as one token each, digits and letters."""

from collections.abc import Iterator
from typing import Any

from dynalign_contract.agents import AgentModel
from dynalign_contract.preflight import Preflight
from dynalign_contract.settings import EvaluationJudge, PromptSettings, WinRateMethod, WinRateSettings
from dynalign_trainer.models.choices import DIGITS, LETTERS, Choices, digit_leads


def check_answers(tokenizer: Any, preflight: Preflight) -> None:
    """Raise BadInputError naming the first prefill after which the model itself could not be asked for a choice."""
    for choices, lead in _leads(preflight):
        choices.tokens(tokenizer, lead)


def _leads(preflight: Preflight) -> Iterator[tuple[Choices, str]]:
    """What the model itself is asked for in a run, and the text right before the answer."""
    objective = preflight.objective
    if objective is None:
        return
    if _scores_itself(preflight):
        for lead in digit_leads(objective.judge.prefill):
            yield DIGITS, lead
    if objective.critic is not None and _is_own_critic(preflight.prompts):
        yield DIGITS, objective.critic.prefill
    if _evaluates_itself(preflight.win_rate, WinRateMethod.PAIRWISE):
        yield LETTERS, objective.compare.prefill


def _is_own_critic(prompts: PromptSettings) -> bool:
    """Whether the model scores drafts. Where all prompts are supplied there may be none."""
    all_supplied = prompts.supplied is not None and prompts.supplied.share == 1
    return not all_supplied and prompts.agents.critic.model is not AgentModel.ENDPOINT


def _scores_itself(preflight: Preflight) -> bool:
    """Whether the model scores answers: as a judge of the training, or one by one in the evaluation."""
    judges = preflight.judging is None or preflight.judging.need_engine
    return judges or _evaluates_itself(preflight.win_rate, WinRateMethod.POINTWISE)


def _evaluates_itself(win_rate: WinRateSettings | None, method: WinRateMethod) -> bool:
    """Whether the model judges win rates by this method."""
    return (
        win_rate is not None and win_rate.method is method and bool(set(win_rate.judges) - {EvaluationJudge.ENDPOINT})
    )
