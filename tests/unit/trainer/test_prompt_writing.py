"""Rounds of drafts with scripted agents: what goes on, what is dropped by whom, and when nobody can go on."""

import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.agents import AgentsSettings, AuthorSettings, CriticSettings, ReviserSettings, Role
from dynalign_contract.config import PromptsParams, StageConfig
from dynalign_contract.errors import BadInputError
from dynalign_contract.layout import RunLayout
from dynalign_contract.objective import CriticTemplate, Objective, ReviserTemplate
from dynalign_contract.settings import DedupSettings, PromptSettings
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.chat_model import ChatModel
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.quoting import make_delimiters
from dynalign_trainer.models.window import Window
from dynalign_trainer.prompts.agent_models import LazyModels
from dynalign_trainer.prompts.critic import Quotation
from dynalign_trainer.prompts.curator import Curator
from dynalign_trainer.prompts.drafts import Actor, Draft, Tally
from dynalign_trainer.prompts.writing import PromptRequest, PromptWriter
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.telemetry import Telemetry
from support.judging_data import rule_objective
from support.scripted_model import ScriptedModel, Words

OBJECTIVE = rule_objective().model_copy(
    update={
        "critic": CriticTemplate(message="$open $prompt $close", criteria={"good": "Good?"}),
        "reviser": ReviserTemplate(message="Mend: $prompt"),
    }
)


def a_writer(
    folder: Path,
    author: ScriptedModel,
    critic: ScriptedModel,
    reviser: ScriptedModel | None = None,
    *,
    objective: Objective = OBJECTIVE,
    **critic_settings: Any,
) -> PromptWriter:
    agents = AgentsSettings(
        author=AuthorSettings(drafts_per_prompt=2),
        critic=CriticSettings(**critic_settings),
        reviser=ReviserSettings(revise_from=3, revise_below=6) if reviser else None,
    )
    prompts = PromptSettings(agents=agents, min_characters=1, dedup=DedupSettings(threshold=1.0))
    params = PromptsParams(objective=objective, prompts=prompts, reserve_tokens=1)
    context = StageContext(
        config=StageConfig(run="r", iteration=0, params=params),
        params=params,
        layout=RunLayout(folder),
        folder=folder,
        shard=0,
        inputs={},
        telemetry=Telemetry(),
        stopping=threading.Event(),
    )
    roles = {Role.AUTHOR: author, Role.CRITIC: critic} | ({Role.REVISER: reviser} if reviser else {})
    quotation = Quotation(make_delimiters(1, "drafts"), ())
    return PromptWriter(context, roles, Curator(prompts.dedup), Window(ChatTemplate(Words()), 100), quotation)


def order(wanted: int) -> PromptRequest:
    return PromptRequest("train", wanted, done=0, total=wanted)


def texts(drafts: Sequence[Draft]) -> list[str]:
    return [draft.text for draft in drafts]


def test_every_actor_accounts_for_its_drafts(tmp_path: Path) -> None:
    author = ScriptedModel(
        text=lambda turn, number: ["", "Same thing here?"][number % 2] if number < 4 else f"Number {number}?"
    )
    critic = ScriptedModel(digit=lambda message: 1.0 if "Number 5" in message else 7.0)
    tally = Tally()
    drafts = a_writer(tmp_path, author, critic, min_score=2.0).write(order(3), tally)
    assert texts(drafts) == ["Same thing here?", "Number 4?", "Number 6?"]
    hands = {
        hand: (work.given, work.kept, {str(k): v for k, v in work.dropped.items()}) for hand, work in tally.work.items()
    }
    assert hands[Actor.AUTHOR] == (8, 6, {"unfinished": 2})
    assert hands[Actor.CURATOR] == (6, 5, {"duplicate": 1, "surplus": 1})
    assert hands[Actor.CRITIC] == (5, 4, {"low-score": 1})
    rows = tally.draft_rows({draft.draft_id: f"p{i}" for i, draft in enumerate(drafts)})
    assert len(rows) == 8
    assert sorted(row["outcome"] for row in rows) == [
        *("duplicate", "kept", "kept", "kept", "low-score", "surplus", "unfinished", "unfinished"),
    ]
    assert {row["prompt_id"] for row in rows if row["outcome"] == "kept"} == {"p0", "p1", "p2"}
    assert (tally.requests, tally.tokens) == (13, 13)


def test_the_reviser_gets_the_middle_and_the_better_version_goes_on(tmp_path: Path) -> None:
    digits = {"Number 0": 2.0, "Number 1": 4.0, "Number 2": 5.0, "Number 3": 8.0, "Better 1": 7.0, "Better 2": 4.5}
    critic = ScriptedModel(digit=lambda message: next(score for text, score in digits.items() if text in message))
    reviser = ScriptedModel(text=lambda turn, number: f"Better {'12'[number]}?")
    tally = Tally()
    author = ScriptedModel(text=lambda turn, number: f"Number {number}?")
    drafts = a_writer(tmp_path, author, critic, reviser, min_score=3.0).write(order(2), tally)
    assert texts(drafts) == ["Number 3?", "Better 1?"]
    (revised,) = [draft for draft in drafts if draft.before is not None]
    assert (revised.before.text, revised.before.score, revised.score) == ("Number 1?", 4.0, 7.0)  # type: ignore[union-attr]
    work = tally.of(Actor.REVISER)
    assert (work.given, work.kept, dict(work.dropped)) == (2, 1, {"not-better": 1})
    assert tally.outcomes["train-0-00000"].outcome == "low-score"
    assert (tally.outcomes["train-0-00002"].actor, tally.outcomes["train-0-00002"].outcome) == (
        Actor.CURATOR,
        "surplus",
    )


def test_a_mended_text_that_somebody_has_written_already_is_not_used(tmp_path: Path) -> None:
    critic = ScriptedModel(digit=lambda message: 8.0 if "Number 0" in message else 4.0)
    reviser = ScriptedModel(text=lambda turn, number: "Number 0?")
    tally = Tally()
    author = ScriptedModel(text=lambda turn, number: f"Number {number}?")
    drafts = a_writer(tmp_path, author, critic, reviser).write(order(1), tally)
    assert texts(drafts) == ["Number 0?"]
    assert dict(tally.of(Actor.REVISER).dropped) == {"duplicate": 1}


@pytest.mark.parametrize(
    ("author", "critic", "found"),
    [
        (ScriptedModel(limit=3), ScriptedModel(), 3),
        (ScriptedModel(), ScriptedModel(limit=2), 2),
    ],
)
def test_a_budget_ends_the_rounds_with_what_there_is(
    tmp_path: Path, author: ScriptedModel, critic: ScriptedModel, found: int
) -> None:
    tally = Tally()
    drafts = a_writer(tmp_path, author, critic).write(order(4), tally)
    assert len(drafts) == found
    assert tally.warnings == ["the purse is empty; fill it"]
    assert f"{8 - found} budget" in tally.explain()
    assert "the purse is empty; fill it" in tally.explain()


def test_a_critic_that_never_answers_with_a_digit_is_an_error_and_not_an_approval(tmp_path: Path) -> None:
    with pytest.raises(
        BadInputError, match="the critic scripted answered none of its questions about 4 drafts with a digit"
    ):
        a_writer(tmp_path, ScriptedModel(), ScriptedModel(digit=lambda message: math.nan)).write(order(2), Tally())


def test_without_a_critic_whatever_the_curator_lets_in_is_good(tmp_path: Path) -> None:
    objective = OBJECTIVE.model_copy(update={"critic": None, "reviser": None})
    drafts = a_writer(tmp_path, ScriptedModel(), ScriptedModel(digit=lambda message: 1 / 0), objective=objective).write(
        order(2), Tally()
    )
    assert len(drafts) == 2


def test_agents_are_not_even_cast_where_the_user_s_prompts_are_enough(tmp_path: Path) -> None:
    def nobody() -> dict[Role, ChatModel]:
        raise AssertionError("an agent was asked for")

    writer = replace(a_writer(tmp_path, ScriptedModel(), ScriptedModel()), roles=LazyModels(nobody))
    chats: list[tuple[Message, ...]] = [
        (Message(role="user", content=text),)
        for text in ("word " * 200, "Number one?", "Number one?", "Number two?", "x")
    ]
    tally = Tally()
    kept = writer.admit(chats, 2, tally)
    assert [chat[0]["content"] for chat in kept] == ["Number one?", "Number two?"]
    assert writer.write(order(0), tally) == []
    assert dict(tally.of(Actor.SUPPLIED).dropped) == {"long": 1, "duplicate": 1}
    assert (tally.of(Actor.SUPPLIED).given, tally.of(Actor.SUPPLIED).kept) == (4, 2)
    with pytest.raises(AssertionError):
        writer.write(order(1), tally)
