"""Digits and letters that answer an objective's questions are one token each, or fetch refuses the model."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from dynalign_contract.agents import AgentModel, AgentsSettings, CriticSettings
from dynalign_contract.errors import BadInputError
from dynalign_contract.objective import BUILTIN, CompareTemplate, Objective, builtin_objective
from dynalign_contract.preflight import Preflight
from dynalign_contract.settings import EvaluationJudge, JudgingSettings, SuppliedPrompts, WinRateMethod, WinRateSettings
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.preflight.answers import check_answers
from lab.tiny_qwen3 import write_tiny_qwen3
from support.preflight_runs import a_preflight, fetch, refusal

OBJECTIVE = builtin_objective(BUILTIN[0])
SPACED = OBJECTIVE.model_copy(
    update={"compare": CompareTemplate(message=OBJECTIVE.compare.message, prefill="Better answer: ")}
)
"""An objective for tokenizers that write a word and the space before it as two tokens, as the tiny model's does."""


def asking(
    objective: Objective | None,
    *,
    method: WinRateMethod = WinRateMethod.PAIRWISE,
    judge: EvaluationJudge = EvaluationJudge.BASE,
) -> Preflight:
    win_rate = WinRateSettings(method=method, judges=(judge,))
    return a_preflight().model_copy(update={"objective": objective, "win_rate": win_rate})


def with_critic(prefill: str, *, model: AgentModel = AgentModel.BASE, supplied: float | None = None) -> Preflight:
    assert SPACED.critic is not None
    objective = SPACED.model_copy(update={"critic": SPACED.critic.model_copy(update={"prefill": prefill})})
    preflight = asking(objective)
    prompts = preflight.prompts.model_copy(
        update={
            "agents": AgentsSettings(critic=CriticSettings(model=model)),
            "supplied": None if supplied is None else SuppliedPrompts(uri="/x.jsonl", share=supplied),
        }
    )
    return preflight.model_copy(update={"prompts": prompts})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_qwen3(tmp_path_factory.mktemp("tiny") / "model")


def test_fetch_refuses_what_the_evaluation_would_refuse(model: Path, tmp_path: Path) -> None:
    said = refusal(fetch(model, asking(OBJECTIVE), tmp_path / "root"), tmp_path / "root")
    assert "cannot write ' A' as exactly one token after the prefill 'Better answer:'" in said
    assert "Change the objective's prefill" in said


@pytest.mark.parametrize(
    "preflight",
    [
        pytest.param(asking(SPACED), id="a prefill that ends with a space"),
        pytest.param(asking(OBJECTIVE, method=WinRateMethod.POINTWISE), id="nothing is compared"),
        pytest.param(asking(OBJECTIVE, judge=EvaluationJudge.ENDPOINT), id="another model compares"),
        pytest.param(asking(None), id="the objective is not at hand"),
    ],
)
def test_what_the_model_is_not_asked_for_does_not_matter(preflight: Preflight, model: Path) -> None:
    check_answers(load_tokenizer(model), preflight)


class MergingTokenizer:
    """Writes a digit and the character before it as one token, except behind a space."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        merged = len(text) > 1 and text[-1].isdigit() and not text[-2].isspace()
        return [*map(ord, text[:-2]), ord(text[-1]) << 21 | ord(text[-2])] if merged else [*map(ord, text)]

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [str(number) for number in ids]


@pytest.mark.parametrize(
    "preflight",
    [
        pytest.param(with_critic("Score:"), id="its own critic"),
        pytest.param(with_critic("Score:", supplied=0.5), id="its own critic, of a part of the prompts"),
        pytest.param(
            asking(SPACED.model_copy(update={"judge": SPACED.judge.model_copy(update={"prefill": "Score:"})})),
            id="the judge",
        ),
    ],
)
def test_digits_are_asked_for_by_judge_and_critic(preflight: Preflight) -> None:
    with pytest.raises(BadInputError, match="cannot write '0' as exactly one token after the prefill 'Score:'"):
        check_answers(MergingTokenizer(), preflight)


@pytest.mark.parametrize(
    "preflight",
    [
        pytest.param(with_critic("Score:", supplied=1.0), id="there are no drafts"),
        pytest.param(with_critic("Score:", model=AgentModel.ENDPOINT), id="another model criticises"),
    ],
)
def test_a_critic_that_is_not_the_model_may_begin_as_it_likes(preflight: Preflight) -> None:
    check_answers(MergingTokenizer(), preflight)


JUDGE_ELSEWHERE = JudgingSettings.model_validate(
    {"judges": [{"name": "outside", "judge": "Endpoint", "endpoint": {"url": "http://vllm:8000/v1", "model": "m"}}]}
)


@pytest.mark.parametrize(
    ("judging", "method", "evaluator", "asked"),
    [
        (JudgingSettings(), WinRateMethod.PAIRWISE, EvaluationJudge.ENDPOINT, True),
        (JUDGE_ELSEWHERE, WinRateMethod.PAIRWISE, EvaluationJudge.ENDPOINT, False),
        (JUDGE_ELSEWHERE, WinRateMethod.POINTWISE, EvaluationJudge.ENDPOINT, False),
        (JUDGE_ELSEWHERE, WinRateMethod.POINTWISE, EvaluationJudge.BASE, True),
    ],
)
def test_judges_elsewhere_may_be_asked_in_any_way(
    judging: JudgingSettings, method: WinRateMethod, evaluator: EvaluationJudge, asked: bool
) -> None:
    objective = SPACED.model_copy(
        update={"judge": SPACED.judge.model_copy(update={"prefill": "Score:"}), "critic": None}
    )
    preflight = asking(objective, method=method, judge=evaluator).model_copy(update={"judging": judging})
    with pytest.raises(BadInputError, match="after the prefill 'Score:'") if asked else nullcontext():
        check_answers(MergingTokenizer(), preflight)
