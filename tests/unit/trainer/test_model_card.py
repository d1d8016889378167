"""What the model card says of chats: enough to ask the exported model as the run asked it."""

import pytest
import yaml

from dynalign_contract.config import ExportParams, Policy
from dynalign_contract.objective import builtin_objective
from dynalign_trainer.export.model_card import build_model_card
from dynalign_trainer.models.answer_start import QUESTION
from dynalign_trainer.models.origin import Origin
from support.chat_templates import template_of

PARAMS = ExportParams(policy=Policy(), model_uri="hf://a/b", objective=builtin_objective("collective-agency"))


@pytest.mark.parametrize(
    ("family", "chat", "words"),
    [
        (
            "qwen3",
            {},
            ["- Chats: arguments of the chat template: enable_thinking=False\n", "messages, enable_thinking=F"],
        ),
        (
            "qwen3",
            {"thinking": "On"},
            ["- Chats: answers begin with thoughts; arg", "messages, enable_thinking=True, add"],
        ),
        ("gpt-oss", {}, ["- Chats: after the generation prompt: `<|channel|>final<|message|>`\n"]),
        ("gpt-oss", {"arguments": {"reasoning_effort": "low"}}, ["template: reasoning_effort='low'; after the"]),
        (
            "qwen2.5",
            {"system_prompt": "Be kind."},
            ["- Chats: a system turn, as below\n", '"content": "Be kind."}, {"role"'],
        ),
    ],
)
def test_the_card_says_how_to_ask(family: str, chat: dict[str, object], words: list[str]) -> None:
    card = build_model_card("r", PARAMS, template_of(family, **chat))
    for word in words:
        assert word in card


def test_the_card_of_a_model_that_is_asked_as_its_template_has_it_says_nothing_of_chats() -> None:
    template = template_of("llama-3")
    assert "- Chats" not in build_model_card("r", PARAMS, template)
    assert "apply_chat_template(messages, add_generation_prompt=True, return" in build_model_card("r", PARAMS, template)
    assert template.complete([QUESTION]) == [QUESTION]


def test_the_card_says_from_what_the_base_weights_were_converted() -> None:
    template, origin = template_of("llama-3"), Origin(uri="hf://a/b", commit="0123abcd")
    assert "Base weights" not in build_model_card("r", PARAMS, template, origin)
    converted = origin.model_copy(update={"quantized": "mxfp4"})
    card = build_model_card("r", PARAMS, template, converted)
    assert "\n- Base weights: converted from mxfp4 to BFloat16 before the run, commit `0123abcd`\n- Policy" in card


@pytest.mark.parametrize(
    ("uri", "named"),
    [("hf://a/b@v1", "a/b"), ("s3://models/mine", None), ("/models/mine", None)],
    ids=["hub", "bucket", "folder"],
)
def test_a_base_model_of_the_hub_is_named_as_the_hub_does(uri: str, named: str | None) -> None:
    card = build_model_card("r", PARAMS.model_copy(update={"model_uri": uri}), template_of("llama-3"))
    _, front, _ = card.split("---\n", 2)
    assert yaml.safe_load(front).get("base_model") == named
