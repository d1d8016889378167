"""Where the policy begins to write, and where an answer that is begun for a model begins, in real shapes of templates.

The files of data/chats show both by eye: `▮` is the place.
"""

from typing import Any

import pytest

from dynalign_contract.errors import StageError
from dynalign_contract.settings import ChatSettings, Thinking
from dynalign_contract.settings.chat import RESERVED, SWITCHES
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.answer_start import QUESTION
from dynalign_trainer.models.template_errors import TemplateRefusalError, ThinkingError
from support.chat_templates import FAMILIES, template_of
from support.goldens import Goldens

SYSTEM = "You are a gardener."
EMPTY = "<think>\n\n</think>\n\n"

NO_THOUGHTS = (
    *("command-r7b", "gemma-2", "gemma-3", "llama-3", "llama-3.2", "mistral-small-3", "mistral-v0.3", "phi-4"),
    *("qwen2.5", "smollm2"),
)
SWITCHED = ("deepseek-v3.1", "glm-4.5", "granite-3.3", "qwen3", "smollm3")
ALWAYS = ("deepseek-r1", "phi-4-reasoning", "qwen3-thinking")
CHANNELS = ("gpt-oss",)


def describe(family: str, thinking: Thinking, system: str | None) -> str:
    template = template_of(family, thinking=thinking, system_prompt=system)
    head = f"thinking: {thinking}, {'a' if system else 'no'} system turn"
    try:
        asked = template.render([QUESTION])
        begun = template.render_answer(template.complete([QUESTION]), "Score: ")
    except StageError as error:
        return f"=== {head}\n{error}\n"
    return f"=== {head}: the policy answers\n{asked}▮\n=== {head}: an answer is begun\n{begun}▮\n"


@pytest.mark.parametrize("family", FAMILIES)
def test_chats_as_a_reader_sees_them(family: str, goldens: Goldens) -> None:
    parts = [
        describe(family, thinking, system) for thinking in (Thinking.OFF, Thinking.ON) for system in (None, SYSTEM)
    ]
    goldens.check_text(f"chats/{family}.txt", "\n".join(parts))


def test_every_family_is_of_one_kind() -> None:
    assert sorted([*NO_THOUGHTS, *SWITCHED, *ALWAYS, *CHANNELS]) == FAMILIES
    assert len(FAMILIES) >= 12


@pytest.mark.parametrize("family", NO_THOUGHTS)
def test_a_template_without_thoughts_renders_the_same_whatever_is_asked(family: str) -> None:
    off, on = (template_of(family, thinking=thinking) for thinking in (Thinking.OFF, Thinking.ON))
    assert off.form.arguments == on.form.arguments == {}
    assert off.render_answer([QUESTION], "7") == on.render_answer([QUESTION], "7")


@pytest.mark.parametrize("family", SWITCHED)
def test_a_switch_turns_thoughts_on_for_the_policy_and_off_for_begun_answers(family: str) -> None:
    off, on = (template_of(family, thinking=thinking) for thinking in (Thinking.OFF, Thinking.ON))
    assert off.render([QUESTION]) != on.render([QUESTION])
    assert off.render_answer([QUESTION], "7") == on.render_answer([QUESTION], "7")
    assert off.render_answer([QUESTION], "7").startswith(off.render([QUESTION]))
    assert template_of(family, thinking="Auto").form == off.form


@pytest.mark.parametrize("family", ALWAYS)
def test_a_thought_that_nothing_switches_off_is_named(family: str) -> None:
    with pytest.raises(ThinkingError, match=r'thinking is "Off"\. Write thinking: "On" or thinking: Auto'):
        template_of(family).render([QUESTION])
    assert template_of(family, thinking="Auto").form == template_of(family, thinking="On").form
    assert template_of(family, thinking="Auto").form.thinks


@pytest.mark.parametrize(
    ("family", "thinking", "between"),
    [
        ("qwen3", "Off", "<|im_start|>assistant\n" + EMPTY),
        ("qwen3", "On", "<|im_start|>assistant\n" + EMPTY),
        ("qwen3-thinking", "On", "<|im_start|>assistant\n" + EMPTY),
        ("deepseek-r1", "On", "<｜Assistant｜>" + EMPTY),  # noqa: RUF001 - the tokens are written so
        ("deepseek-v3.1", "On", "<｜Assistant｜></think>"),  # noqa: RUF001 - the tokens are written so
        ("glm-4.5", "Off", "<|assistant|>\n<think></think>\n"),
        ("gpt-oss", "Off", "<|start|>assistant<|channel|>final<|message|>"),
        ("gpt-oss", "On", "<|start|>assistant<|channel|>final<|message|>"),
        ("command-r7b", "Off", "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>"),
        ("mistral-v0.3", "Off", "[/INST] "),
        ("llama-3", "Off", "<|start_header_id|>assistant<|end_header_id|>\n\n"),
    ],
)
def test_an_answer_is_begun_where_the_template_puts_it(family: str, thinking: str, between: str) -> None:
    template = template_of(family, thinking=thinking)
    assert template.render_answer([QUESTION], "Score: ").endswith(between + "Score: ")
    decoded = template.tokenizer.decode(template.encode_answer([QUESTION], "Score: "))
    assert decoded == template.render_answer([QUESTION], "Score: ")


def test_without_thoughts_the_policy_writes_in_the_final_channel() -> None:
    assert template_of("gpt-oss").render([QUESTION]).endswith("<|start|>assistant<|channel|>final<|message|>")
    assert template_of("gpt-oss", thinking="On").render([QUESTION]).endswith("<|start|>assistant")


def test_arguments_reach_the_template() -> None:
    template = template_of("gpt-oss", arguments={"reasoning_effort": "low"})
    assert "Reasoning: low" in template.render([QUESTION])
    assert "Reasoning: low" in template.render_answer([QUESTION], "7")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("low", "low"),
        (3, 3),
        ("3", 3),
        ("true", True),
        ("0.5", 0.5),
        ("null", "null"),
        ("NaN", "NaN"),
        ("1e999", "1e999"),
    ],
)
def test_a_text_that_is_a_json_scalar_is_passed_as_what_it_says(written: Any, value: object) -> None:
    found = ChatSettings.model_validate({"arguments": {"x": written}}).values["x"]
    assert (found, type(found)) == (value, type(value))


def test_what_transformers_passes_itself_is_no_argument_of_the_users() -> None:
    import inspect

    from transformers import PreTrainedTokenizerBase
    from transformers.utils.chat_template_utils import render_jinja_template

    taken = [PreTrainedTokenizerBase.apply_chat_template, render_jinja_template]
    names = {name for function in taken for name in inspect.signature(function).parameters}
    tokens = set(PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES)
    assert (names | tokens) - {"kwargs", *RESERVED} == set()
    assert not set(SWITCHES) & set(RESERVED)


@pytest.mark.parametrize("family", ["llama-3.2", "gpt-oss", "granite-3.3", "mistral-small-3", "smollm3"])
def test_a_template_that_prints_the_date_prints_the_same_every_day(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import chat_template_utils

    monkeypatch.delattr(chat_template_utils, "datetime")  # today's date is out of reach
    text = template_of(family).render([QUESTION])
    assert any(date in text for date in ("01 Jan 2026", "2026-01-01", "January 01, 2026", "01 January 2026"))


def test_a_date_of_the_users_own() -> None:
    assert "29 Nov 2026" in template_of("llama-3.2", arguments={"date_string": "29 Nov 2026"}).render([QUESTION])


def test_the_system_turn_is_for_prompts_that_have_none_and_not_for_judges() -> None:
    template = template_of("qwen2.5", system_prompt=SYSTEM)
    own = Message(role="system", content="You are a pilot.")
    assert SYSTEM in template.render([QUESTION])
    assert SYSTEM not in template.render([own, QUESTION])
    assert SYSTEM not in template.render_answer([QUESTION], "Score: ")


def test_a_template_that_takes_no_system_turn_says_so() -> None:
    with pytest.raises(TemplateRefusalError, match="System role not supported"):
        template_of("gemma-2", system_prompt=SYSTEM).render([QUESTION])
