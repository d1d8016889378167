"""Judges, critic, author and tasks begin an answer where the model's template puts it, whatever that is."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from dynalign_contract.config import Policy
from dynalign_contract.objective import builtin_objective
from dynalign_contract.settings import JudgingMethod, JudgingSettings
from dynalign_trainer.evaluate.harness_model import EngineLM
from dynalign_trainer.models.answer_start import QUESTION
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.engine_model import EngineModel
from dynalign_trainer.models.quoting import make_delimiters
from dynalign_trainer.prompts.author import write_drafts
from dynalign_trainer.prompts.critic import Quotation, score_drafts
from dynalign_trainer.prompts.drafts import Draft, Tally
from dynalign_trainer.scoring.contexts import Candidate
from dynalign_trainer.scoring.pairwise import AnswerPair, PairwiseJudge
from dynalign_trainer.scoring.pointwise import PointwiseJudge
from support.chat_templates import template_of
from support.template_engines import RecordingEngine

OBJECTIVE = builtin_objective("collective-agency")
ASKED = [QUESTION]
PLACES = {
    "qwen3": "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "qwen3-thinking": "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "deepseek-r1": "<｜Assistant｜><think>\n\n</think>\n\n",  # noqa: RUF001 - the tokens are written so
    "gpt-oss": "<|start|>assistant<|channel|>final<|message|>",
    "smollm2": "<|im_start|>assistant\n",
}


Asking = Callable[[EngineModel], object]


def pointwise(method: JudgingMethod) -> Asking:
    def ask(model: EngineModel) -> object:
        judging = JudgingSettings(method=method, votes=2) if method is JudgingMethod.VOTES else JudgingSettings()
        return PointwiseJudge(model, OBJECTIVE, judging, seed=lambda *_: 1).score([Candidate("p", ASKED, "Light.")])

    return ask


def pairwise(model: EngineModel) -> object:
    judge = PairwiseJudge(model, OBJECTIVE, min_mass=0.0, delimiter_seed=1)
    return judge.compare([AnswerPair("p", ASKED, "Light.", "Air.")], None)


def critic(model: EngineModel) -> object:
    quotation = Quotation(make_delimiters(1, "drafts"), ())
    return score_drafts(model, OBJECTIVE, [Draft("Why?", {})], quotation, watch=lambda *_: None)


def author(model: EngineModel) -> object:
    from dynalign_contract.agents import AuthorSettings

    seed = {name: values[0] for name, values in OBJECTIVE.facets.items()}
    return write_drafts(
        model,
        OBJECTIVE,
        AuthorSettings(),
        [seed],
        names=["d"],
        sampling_seeds=[1],
        tally=Tally(),
        watch=lambda *_: None,
    )


ASKINGS: dict[str, tuple[Asking, str]] = {
    "judge": (pointwise(JudgingMethod.EXPECTED_SCORE), OBJECTIVE.judge.prefill),
    "judge by votes": (pointwise(JudgingMethod.VOTES), "Reasons: "),
    "pairwise judge": (pairwise, OBJECTIVE.compare.prefill),
    "critic": (critic, OBJECTIVE.critic.prefill if OBJECTIVE.critic is not None else ""),
    "author": (author, OBJECTIVE.author.prefill),
}


@pytest.mark.parametrize("family", PLACES)
@pytest.mark.parametrize("who", ASKINGS)
def test_an_answer_is_begun_where_the_template_puts_it(who: str, family: str) -> None:
    ask, prefill = ASKINGS[who]
    engine = RecordingEngine(template_of(family, thinking="On"))
    ask(EngineModel(cast(Engine, engine), Policy()))
    assert engine.asked
    assert all(PLACES[family] + prefill in text for text in engine.asked)


@pytest.mark.parametrize("family", PLACES)
def test_a_task_goes_on_from_its_own_beginning_of_the_answer(family: str) -> None:
    engine = RecordingEngine(template_of(family, thinking="Auto", system_prompt="Be kind."))
    model = EngineLM(cast(Engine, engine), Policy(), None)
    begun = [*ASKED, {"role": "assistant", "content": "The answer is"}]
    text = model.apply_chat_template(cast(Any, begun), add_generation_prompt=False)
    assert text.endswith(PLACES[family] + "The answer is")
    assert "Be kind." in text
    assert model.apply_chat_template(cast(Any, ASKED)) == engine.chat.render(ASKED)
