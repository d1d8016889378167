"""What model, tokenizer, template and rows decide about a run is said by the fetch stage, before the weights come."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.result import Outcome, StageResult
from dynalign_contract.settings import (
    DecontaminationSettings,
    EngineSettings,
    RewardSettings,
    TrainingBackend,
)
from lab.tiny_qwen3 import CHATML
from support.odd_models import (
    DROPS_SYSTEM,
    NO_SYSTEM,
    Change,
    add_tokens,
    as_fp8,
    as_gptq,
    as_int8,
    bare_names,
    cut_embedding,
    leave_an_adapter,
    map_to_own_code,
    set_json,
    set_template,
    store_as,
    write_tiny_phi3,
)
from support.preflight_runs import a_preflight, chat, fetch, refusal, rows
from support.reward_servers import serve_rewards

TURNS = CHATML.replace("<|im_start|>", "<|turn|>").replace("<|im_end|>", "<|over|>")
QUESTIONS = [f"Question number {i}: is it long enough for this?" for i in range(12)]


def damage_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "BPE", "vocab": 7}}')


@pytest.mark.parametrize(
    ("changes", "settings", "words"),
    [
        pytest.param(
            [add_tokens("<|turn|>", "<|over|>", template=TURNS)],
            {},
            ["ids up to 260", "embedding has 259 rows"],
            id="c03b",
        ),
        pytest.param([add_tokens("<|mine|>")], {}, ["<|mine|>", "resize_token_embeddings"], id="added-word"),
        pytest.param(
            [],
            {"targets": ["q_proj", "input_layernorm"]},
            ["spec.training.lora.targetModules", "input_layernorm", "Write some of", "down_proj"],
            id="c05",
        ),
        pytest.param([], {"targets": ["q_proj", "embed_tokens"]}, ["embed_tokens is an embedding"], id="c04"),
        pytest.param(
            [write_tiny_phi3],
            {"targets": ["q_proj"]},
            ["which Phi3ForCausalLM does not have", "qkv_proj"],
            id="c07b",
        ),
        pytest.param(
            [set_json("config.json", quantization_config={"quant_method": "bitsandbytes"})],
            {},
            ["quantised", "bitsandbytes", "BFloat16"],
            id="c06",
        ),
        pytest.param([store_as(as_fp8)], {}, ["quantised", "as F8_E4M3"], id="c06b-without-settings"),
        pytest.param([store_as(as_int8)], {}, ["quantised", "as I8"], id="int8"),
        pytest.param([store_as(as_gptq)], {}, ["quantised", "qweight"], id="gptq"),
        pytest.param(
            [set_json("hf_quant_config.json", quantization={})],
            {},
            ["quantised", "hf_quant_config.json"],
            id="modelopt",
        ),
        pytest.param(
            [set_json("quantize_config.json", bits=4)], {}, ["quantised", "quantize_config.json"], id="gptq-file"
        ),
        pytest.param(
            [set_json("config.json", model_type="mine", auto_map={"AutoModel": "mine.Mine"})],
            {},
            ["asks for code of its own (auto_map, model_type mine)"],
            id="code",
        ),
        pytest.param(
            [set_json("config.json", model_type="mine")],
            {},
            ["no causal language model of the model_type mine"],
            id="unknown-type",
        ),
        pytest.param([set_json("config.json", model_type=None)], {}, ["has no model_type"], id="no-type"),
        pytest.param(
            [set_json("config.json", model_type="t5", architectures=["T5ForConditionalGeneration"])],
            {},
            ["no causal language model of the model_type t5"],
            id="encoder-decoder",
        ),
        pytest.param(
            [set_json("config.json", num_attention_heads="two")],
            {},
            ["describes no model that transformers can build"],
            id="broken-field",
        ),
        pytest.param(
            [store_as(bare_names)],
            {},
            ["embed_tokens.weight and no model.embed_tokens.weight", "python -m dynalign_trainer.preflight.text_model"],
            id="c13",
        ),
        pytest.param([store_as(bare_names)], {"method": "Full"}, ["no model.embed_tokens.weight"], id="c13-full"),
        pytest.param(
            [store_as(cut_embedding)],
            {},
            ["model.embed_tokens.weight has the shape [256, 32]", "asks for [259, 32]"],
            id="shapes",
        ),
        pytest.param([damage_tokenizer], {}, ["tokenizer in", "cannot be loaded"], id="tokenizer-damaged"),
        pytest.param([leave_an_adapter], {}, ["holds an adapter beside whole weights"], id="c08"),
        pytest.param(
            [set_template("{{ raise_exception('no') }}")],
            {},
            ["cannot render a single question"],
            id="template-refuses",
        ),
        pytest.param([set_template("{{ 'Hello' }}")], {}, ["leaves out what the user says"], id="template-deaf"),
        pytest.param(
            [set_template("{% for m in messages %}")], {}, ["cannot render a single question"], id="template-broken"
        ),
        pytest.param([], {"languages": ("xx",)}, ["prompts.languages: xx cannot be recognised"], id="language"),
        pytest.param(
            [],
            {"decontamination": DecontaminationSettings(uri="/no/such.jsonl")},
            ["prompts.decontamination.uri: there is no file"],
            id="texts",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_the_weights_come(
    changes: Sequence[Change], settings: dict[str, Any], words: list[str], model: Path, tmp_path: Path
) -> None:
    for change in changes:
        change(model)
    result = fetch(model, a_preflight(rows(tmp_path, [chat(q) for q in QUESTIONS]), **settings), tmp_path / "run")
    message = refusal(result, tmp_path / "run")
    for word in words:
        assert word in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda folder: None, id="plain"),
        pytest.param(add_tokens("<|image|>", special=True), id="special-token-without-row"),
        pytest.param(set_json("config.json", auto_map={"AutoModel": "modeling.Mine"}), id="c07-native"),
        pytest.param(set_json("tokenizer_config.json", pad_token=None), id="c02-no-pad"),
        pytest.param(set_json("generation_config.json", eos_token_id=[0, 2], temperature=0.6), id="c11-eos-list"),
        pytest.param(set_template(NO_SYSTEM), id="no-system-and-none-needed"),
    ],
)
def test_what_fits_passes(change: Change, model: Path, tmp_path: Path) -> None:
    change(model)
    result = fetch(model, a_preflight(rows(tmp_path, [chat(q) for q in QUESTIONS])), tmp_path / "run")
    assert result.outcome is Outcome.SUCCEEDED, result.error
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_an_architecture_that_transformers_knows_needs_no_code(model: Path, tmp_path: Path) -> None:
    write_tiny_phi3(model)
    map_to_own_code(model)
    for outcome in (Outcome.SUCCEEDED, Outcome.SKIPPED):
        result = fetch(model, a_preflight(), tmp_path / "run")
        assert result.outcome is outcome, result.error
        assert result.training is not None
        assert result.training.backend is TrainingBackend.PACKED
        assert result.training.target_modules == ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")


@pytest.mark.parametrize(
    ("template", "found", "words"),
    [
        pytest.param(
            NO_SYSTEM,
            [chat(q, "Be kind.") for q in QUESTIONS],
            ["line 1, line 2", "and 4 more", "System role not supported", "at the beginning of the first user turn"],
            id="c01",
        ),
        pytest.param(
            NO_SYSTEM,
            [{"messages": [{"role": "user", "content": QUESTIONS[0]}] * 2}],
            ["line 1:", "must alternate", "join turns"],
            id="order",
        ),
        pytest.param(
            NO_SYSTEM,
            [
                chat(QUESTIONS[0]),
                {"messages": [{"role": "system", "content": "a"}, *[{"role": "user", "content": QUESTIONS[1]}] * 2]},
            ],
            ["line 2:", "join turns", "no system turn"],
            id="both",
        ),
        pytest.param(
            DROPS_SYSTEM,
            [chat(q, "Be kind.") for q in QUESTIONS],
            ["leaves out what the system turn says"],
            id="dropped",
        ),
        pytest.param(CHATML, [{"prompt": 7}], ["line 1: prompt is a number"], id="shape"),
        pytest.param(
            CHATML,
            [chat(QUESTIONS[0])],
            ["spec.prompts.perIteration is 4", "has 1 that can be used", "Lower spec.prompts.perIteration to"],
            id="c19",
        ),
        pytest.param(
            CHATML,
            [chat("long " * 200) for _ in range(9)] + [chat("Hi")],
            [
                "9 of 10 rows have more than",
                "1 of 10 rows have fewer than 5 characters",
                "Raise spec.prompts.maxTokens",
            ],
            id="c20",
        ),
    ],
)
def test_rows_are_held_against_template_window_and_number(
    template: str, found: Sequence[Any], words: list[str], model: Path, tmp_path: Path
) -> None:
    set_template(template)(model)
    result = fetch(model, a_preflight(rows(tmp_path, found)), tmp_path / "run")
    message = refusal(result, tmp_path / "run")
    for word in words:
        assert word in message
    assert "mine.jsonl" in message


def test_verifiers_are_held_against_their_libraries_and_the_rows(model: Path, tmp_path: Path) -> None:
    uri = rows(tmp_path, [{**chat(question), "answer": "yes"} for question in QUESTIONS])
    wrong: list[dict[str, Any]] = [
        {"name": "list", "type": "Regex", "pattern": "(?=a)b"},
        {"name": "right", "type": "Match", "column": "result"},
    ]
    rewards = tuple(RewardSettings.model_validate(reward) for reward in wrong)
    first = fetch(model, a_preflight(uri).model_copy(update={"rewards": rewards}), tmp_path / "run")
    message = refusal(first, tmp_path / "run")
    assert "rewards[0].pattern: the pattern '(?=a)b' cannot be used" in message
    assert "rewards[1].column: no row of" in message
    rewards = (RewardSettings.model_validate({**wrong[1], "column": "answer"}),)
    result = fetch(model, a_preflight(uri).model_copy(update={"rewards": rewards}), tmp_path / "again")
    assert result.outcome is Outcome.SUCCEEDED, result.error


def test_servers_and_functions_of_rewards_are_asked_for_in_fetch_and_again_when_it_is_done(
    model: Path, tmp_path: Path
) -> None:
    def run(url: str, entry_point: str | None = None) -> StageResult:
        own = [] if entry_point is None else [{"name": "own", "type": "Python", "entryPoint": entry_point}]
        service = {"name": "service", "type": "Http", "endpoint": {"url": url, "retries": 0}}
        rewards = tuple(RewardSettings.model_validate(reward) for reward in [service, *own])
        return fetch(model, a_preflight().model_copy(update={"rewards": rewards}), tmp_path / "run")

    with serve_rewards() as server:
        refused = refusal(run(server.url, "no-such-thing"), tmp_path / "run")
        assert refused.startswith("rewards[1].entryPoint: no package in this image registers no-such-thing")
        assert run(server.url).outcome is Outcome.SUCCEEDED
        assert run(server.url).outcome is Outcome.SKIPPED
    assert (server.probes, server.bodies) == (3, [])
    down = run(server.url)
    assert down.error is not None
    assert down.error.reason == "EndpointFailed"


def test_everything_is_told_at_once(model: Path, tmp_path: Path) -> None:
    set_template(NO_SYSTEM)(model)
    uri = rows(tmp_path, [chat(q, "Be kind.") for q in QUESTIONS])
    message = refusal(fetch(model, a_preflight(uri, targets=["qkv_proj"]), tmp_path / "run"), tmp_path / "run")
    assert message.startswith("2 things are wrong.")
    assert "targetModules names qkv_proj" in message
    assert "System role not supported" in message


@pytest.mark.parametrize(
    ("answer", "thought", "words"), [(60, None, "maxTokens is 60, and"), (20, 40, "is 20 and thinkingTokens 40, and")]
)
def test_a_window_without_room_for_a_prompt_is_refused(
    answer: int, thought: int | None, words: str, model: Path, tmp_path: Path
) -> None:
    wanted = a_preflight(max_tokens=answer).model_copy(update={"thinking_tokens": thought})
    message = refusal(fetch(model, wanted, tmp_path / "run", EngineSettings(max_length=64)), tmp_path / "run")
    assert f"{words} the context window has 64 tokens" in message


def test_other_settings_fetch_nothing_anew_and_are_checked_again(model: Path, tmp_path: Path) -> None:
    uri = rows(tmp_path, [chat(q) for q in QUESTIONS])
    first = fetch(model, a_preflight(uri), tmp_path / "run")
    shutil.rmtree(model)
    again = fetch(model, a_preflight(uri, per_iteration=5), tmp_path / "run")
    assert (again.outcome, again.artifact) == (Outcome.SKIPPED, first.artifact)
    refused = fetch(model, a_preflight(uri, per_iteration=64), tmp_path / "run")
    assert refused.exit_code in (10, 11)
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
