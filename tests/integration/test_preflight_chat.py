"""What fetch says of a chat template and of the run's chat settings."""

from pathlib import Path

import pytest

from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.settings import (
    ChatSettings,
    Thinking,
)
from dynalign_contract.stages import Stage
from dynalign_operator.planning import reasons
from dynalign_operator.planning.observed import Observed
from dynalign_operator.planning.planner import plan
from lab.tiny_qwen3 import CHATML
from support.builders import T0, a_job, a_run, minutes
from support.odd_models import (
    DROPS_SYSTEM,
    NO_SYSTEM,
    OPENS_THOUGHT,
    THINKS_BY_DEFAULT,
    set_template,
)
from support.preflight_runs import a_preflight, fetch, refusal
from support.simulation import SETTINGS, Simulation


@pytest.mark.parametrize(
    ("template", "thinking", "words"),
    [
        (OPENS_THOUGHT, "Auto", "thinking: Auto is On"),
        (OPENS_THOUGHT, "On", None),
        (THINKS_BY_DEFAULT, "Auto", "thinking: Auto is Off"),
        (THINKS_BY_DEFAULT, "Off", None),
        (CHATML, "Off", None),
        (CHATML, "On", "says nothing of thoughts"),
    ],
)
def test_thinking_becomes_an_event_of_the_run(
    template: str, thinking: str, words: str | None, model: Path, tmp_path: Path
) -> None:
    set_template(template)(model)
    settings = ChatSettings(thinking=Thinking(thinking))
    for attempt in ("Succeeded", "Skipped"):
        result = fetch(model, a_preflight(), tmp_path / "run", chat=settings)
        assert result.outcome == attempt
        job = a_job(Stage.FETCH).succeeded(result).build()
        fetching = Simulation(a_run().build())
        fetching.plan()
        events = plan(Observed(fetching.run, (job,)), T0 + minutes(1), SETTINGS).events
        told = [event.message for event in events if event.reason == reasons.STAGE_WARNING]
        assert (len(told) == 0) if words is None else (len(told) == 1 and words in told[0])


@pytest.mark.parametrize(
    ("template", "settings", "words"),
    [
        (OPENS_THOUGHT, ChatSettings(), 'spec.model.chat.thinking is "Off". Write thinking: "On" or thinking: Auto'),
        (NO_SYSTEM, ChatSettings(system_prompt="Be kind."), "does not take spec.model.chat.systemPrompt (System role"),
        (
            DROPS_SYSTEM,
            ChatSettings(system_prompt="Be kind."),
            "leaves out what a system turn says. Remove spec.model.c",
        ),
        (
            CHATML
            + "{%- if effort is defined and effort != 'low' -%}{{ raise_exception('no such effort') }}{%- endif -%}",
            ChatSettings(arguments={"effort": "huge"}),
            "does not take spec.model.chat.arguments (no such effort). Remove or change it.",
        ),
    ],
)
def test_what_a_template_cannot_do_is_refused(
    template: str, settings: ChatSettings, words: str, model: Path, tmp_path: Path
) -> None:
    set_template(template)(model)
    result = fetch(model, a_preflight(), tmp_path / "run", chat=settings)
    assert result.exit_code == ExitCode.BAD_CONFIG
    assert words in refusal(result, tmp_path / "run")
