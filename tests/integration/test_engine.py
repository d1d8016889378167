"""The engine against transformers and PEFT: the same log-probabilities, for the base model and an adapter."""

import dataclasses
import json
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import GenerateParams, Policy, StageConfig
from dynalign_contract.errors import BadConfigError, BadInputError, TerminatedError
from dynalign_contract.layout import RunLayout
from dynalign_contract.result import ArtifactRef
from dynalign_contract.settings import EngineSettings, GenerationSettings
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.choices import DIGITS
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.models.opening import start_engine
from dynalign_trainer.models.sampler import Sample
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.progress import watch_progress
from dynalign_trainer.runtime.telemetry import Telemetry
from lab.tiny_qwen3 import write_tiny_qwen3
from support.judging_data import write_random_adapter
from support.odd_models import break_weights

pytestmark = pytest.mark.slow

BASE = Policy()
ADAPTED = Policy(version="iteration-000", adapter=ArtifactRef(path="adapter", digest="sha256:" + "0" * 64))
WHOLE = Policy(version="iteration-001", adapter=ArtifactRef(path="whole", digest="sha256:" + "0" * 64))
OTHER_END = 5
"""Token that ends a turn by `generation_config.json` alone, as Llama 3's <|eot_id|> does."""
QUESTIONS = ("Why is the sky blue?", "What is a good life?", "How do I bake bread?")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StageContext[Any]:
    root = tmp_path_factory.mktemp("run")
    model = write_tiny_qwen3(root / "model", head_dim=32)
    ends = [load_tokenizer(model).eos_token_id, OTHER_END]
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    write_random_adapter(model, root / "adapter")
    write_tiny_qwen3(root / "whole", head_dim=32, seed=1)
    config = StageConfig(
        run="test",
        iteration=0,
        engine=EngineSettings(max_length=256),
        params=GenerateParams(generation=GenerationSettings()),
    )
    return StageContext(
        config=config,
        params=config.params,
        layout=RunLayout(root),
        folder=root,
        shard=0,
        inputs={"model": (model,), ADAPTED.version: (root / "adapter",), WHOLE.version: (root / "whole",)},
        telemetry=Telemetry(),
        stopping=threading.Event(),
    )


@pytest.fixture(scope="module")
def engine(context: StageContext[Any]) -> Engine:
    return start_engine(context, [BASE, ADAPTED])


@pytest.fixture(scope="module")
def prompts(engine: Engine) -> list[list[int]]:
    return [engine.chat.encode_answer([{"role": "user", "content": text}], "Score: ") for text in QUESTIONS]


def reference(root: Path, policy: Policy, ids: Sequence[int], temperature: float = 1.0) -> Any:
    """Log-probabilities of every next token by transformers, in float64; shape (tokens, vocabulary)."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(root / "model", dtype=torch.float32)
    if policy is WHOLE:
        model = AutoModelForCausalLM.from_pretrained(root / "whole", dtype=torch.float32)
    elif policy.adapter is not None:
        model = PeftModel.from_pretrained(model, root / policy.adapter.path)
    with torch.no_grad():
        return (model.eval()(torch.tensor([list(ids)])).logits[0].double() / temperature).log_softmax(-1)


@pytest.mark.parametrize("policy", [BASE, ADAPTED], ids=["base", "adapted"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_distribution_sampled_from(
    context: StageContext[Any], engine: Engine, prompts: list[list[int]], policy: Policy, temperature: float
) -> None:
    groups = engine.sample(prompts, Sampling(temperature, max_tokens=12, n=2), policy=policy, seeds=[1, 2, 3])
    assert [len(group) for group in groups] == [2, 2, 2]
    for prompt, group in zip(prompts, groups, strict=True):
        for sample in group:
            table = reference(context.layout.root, policy, [*prompt, *sample.token_ids], temperature)
            expected = [table[len(prompt) - 1 + i, token].item() for i, token in enumerate(sample.token_ids)]
            assert sample.logprobs == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("policy", [BASE, ADAPTED], ids=["base", "adapted"])
def test_scores_are_the_models_own(
    context: StageContext[Any], engine: Engine, prompts: list[list[int]], policy: Policy
) -> None:
    digits = DIGITS.tokens(engine.tokenizer, "Score: ")
    scores = engine.score_next(prompts, digits, policy=policy)
    for prompt, row in zip(prompts, scores, strict=True):
        assert row == pytest.approx(reference(context.layout.root, policy, prompt)[-1, list(digits)].tolist(), abs=1e-4)


@pytest.mark.parametrize("policy", [BASE, ADAPTED], ids=["base", "adapted"])
def test_likelihoods_of_continuations_are_the_models_own(
    context: StageContext[Any], engine: Engine, prompts: list[list[int]], policy: Policy
) -> None:
    (greedy,), *_ = engine.sample(prompts[:1], Sampling(0.0, max_tokens=4), policy=policy, seeds=[0])
    continuations = [list(greedy.token_ids), [7], [5, 9, 12]]
    found = engine.score_continuations(prompts, continuations, policy=policy)
    for prompt, continuation, likelihood in zip(prompts, continuations, found, strict=True):
        table = reference(context.layout.root, policy, [*prompt, *continuation])
        places = range(len(prompt) - 1, len(prompt) + len(continuation) - 1)
        given = [table[place, token].item() for place, token in zip(places, continuation, strict=True)]
        assert likelihood.logprob == pytest.approx(sum(given), abs=1e-3)
        assert likelihood.greedy == all(
            table[place].argmax().item() == token for place, token in zip(places, continuation, strict=True)
        )
    assert found[0].greedy
    assert engine.score_continuations(prompts, continuations, policy=policy) == found


def test_a_completion_ends_before_the_text_that_stops_it(engine: Engine, prompts: list[list[int]]) -> None:
    ((whole,),) = engine.sample(prompts[:1], Sampling(0.0, max_tokens=12), policy=BASE, seeds=[0])
    stop = whole.text[4:6]
    ((cut,),) = engine.sample(prompts[:1], Sampling(0.0, max_tokens=12, stop=(stop,)), policy=BASE, seeds=[0])
    assert cut.text == whole.text[: whole.text.index(stop)]


def test_a_sample_depends_on_its_prompt_and_seed_alone(engine: Engine, prompts: list[list[int]]) -> None:
    def draw(chosen: list[list[int]], seeds: list[int]) -> list[list[Sample]]:
        engine.forget_prefixes()
        return engine.sample(chosen, Sampling(1.0, max_tokens=16, n=2), policy=BASE, seeds=seeds)

    together = draw(prompts, [10, 20, 30])
    assert together == draw(prompts, [10, 20, 30])
    alone = draw(prompts[1:2], [20])
    assert [sample.token_ids for sample in alone[0]] == [sample.token_ids for sample in together[1]]
    assert draw(prompts, [11, 20, 30])[0] != together[0]


def test_the_end_is_part_of_a_stopped_sample(engine: Engine, prompts: list[list[int]]) -> None:
    groups = engine.sample(prompts, Sampling(1.0, max_tokens=24, n=32), policy=BASE, seeds=[1, 2, 3])
    samples = [sample for group in groups for sample in group]
    assert {sample.finish_reason for sample in samples} == {"stop", "length"}
    ends = {engine.tokenizer.eos_token_id, OTHER_END}
    assert {sample.token_ids[-1] for sample in samples if sample.finish_reason == "stop"} == ends
    for sample in samples:
        assert ends.isdisjoint(sample.token_ids[:-1])
        assert (sample.token_ids[-1] in ends) == (sample.finish_reason == "stop")
        assert len(sample.token_ids) == len(sample.logprobs) <= 24


def test_groups_may_enter_while_others_are_under_way(engine: Engine, prompts: list[list[int]]) -> None:
    lengths = (24, 4, 8)
    asked = [Sampling(1.0, max_tokens=length, n=2) for length in lengths]
    alone = [engine.sample(prompts[i : i + 1], asked[i], policy=BASE, seeds=[10 * i])[0] for i in range(3)]
    ended: list[int] = []
    drawn: dict[int, list[Sample]] = {}
    with engine.sampler(BASE) as sampler:
        for i in range(2):
            assert sampler.add(prompts[i : i + 1], asked[i], [10 * i]) == i
        while sampler.underway:
            for one in sampler.advance(lambda: None):
                ended.append(one.number)
                (drawn[one.number],) = one.samples
                if one.number == 1:
                    assert sampler.underway
                    assert sampler.add(prompts[2:], asked[2], [20]) == 2
    assert ended == [1, 2, 0]
    assert sampler.ended == 6
    for i in range(3):
        assert [(sample.token_ids, sample.text) for sample in drawn[i]] == [(s.token_ids, s.text) for s in alone[i]]


def test_what_is_under_way_at_the_end_of_a_sampler_is_given_up(engine: Engine, prompts: list[list[int]]) -> None:
    with engine.sampler(BASE) as sampler:
        sampler.add(prompts, Sampling(1.0, max_tokens=64), [1, 2, 3])
        short = sampler.add(prompts[:1], Sampling(1.0, max_tokens=2), [1])
        assert [drawn.number for drawn in sampler.advance(lambda: None)] == [short]
        assert sampler.underway
    assert len(engine.sample(prompts[:1], Sampling(1.0, max_tokens=4), policy=BASE, seeds=[1])) == 1


def test_texts_are_those_that_vllm_makes_while_it_samples(engine: Engine, prompts: list[list[int]]) -> None:
    """A text that never comes as a stop has vLLM make the texts; random weights write many halves of characters."""
    made, by_vllm = (
        engine.sample(prompts, Sampling(1.5, max_tokens=40, n=8, stop=stop), policy=BASE, seeds=[1, 2, 3])
        for stop in ((), ("\x00never",))
    )
    pairs = [(a, b) for mine, theirs in zip(made, by_vllm, strict=True) for a, b in zip(mine, theirs, strict=True)]
    assert [a.token_ids for a, _ in pairs] == [b.token_ids for _, b in pairs]
    assert [a.text for a, _ in pairs] == [b.text for _, b in pairs]
    assert [a.logprobs for a, _ in pairs] == [b.logprobs for _, b in pairs]
    decoded = [engine.tokenizer.decode(a.token_ids, skip_special_tokens=True) for a, _ in pairs]
    assert any(text != a.text for text, (a, _) in zip(decoded, pairs, strict=True)), "ends of characters are left out"


def test_more_prompts_than_one_step_reads(engine: Engine, prompts: list[list[int]]) -> None:
    """A step takes whole prompts only: what it cannot read at once waits, seeds and all."""
    count = 60
    texts = [[index + 1, *prompts[0], *prompts[index % 3]] for index in range(count)]
    assert sum(map(len, texts)) > 2048
    sampling = Sampling(1.0, max_tokens=4)
    engine.forget_prefixes()
    groups = engine.sample(texts, sampling, policy=BASE, seeds=range(count))
    (alone,) = engine.sample(texts[-1:], sampling, policy=BASE, seeds=[count - 1])
    assert [sample.token_ids for sample in groups[-1]] == [sample.token_ids for sample in alone]


def test_progress_is_watched_and_sigterm_obeyed(
    context: StageContext[Any], engine: Engine, prompts: list[list[int]]
) -> None:
    seen: list[int] = []

    def watch(done: int, total: int, rate: float) -> None:
        watch_progress(context, done=4, total=10, share=6)(done, total, rate)
        seen.append(done)
        if len(seen) == 3:
            context.stopping.set()

    with pytest.raises(TerminatedError):
        engine.sample(prompts, Sampling(1.0, max_tokens=64), policy=BASE, seeds=[1, 2, 3], watch=watch)
    context.stopping.clear()
    progress = context.telemetry.registry.get_sample_value("dynalign_stage_done")
    assert progress is not None
    assert 4 <= progress < 10
    assert len(engine.sample(prompts[:1], Sampling(1.0, max_tokens=4), policy=BASE, seeds=[1], watch=None)) == 1


def test_a_prompt_without_room_is_named(engine: Engine, prompts: list[list[int]]) -> None:
    long = [*prompts[:1], [5] * 250]
    with pytest.raises(BadInputError, match="prompt 1 of 2 has 250 tokens, and 10 more are to follow"):
        engine.sample(long, Sampling(1.0, max_tokens=10), policy=BASE, seeds=[1, 2])
    with pytest.raises(BadInputError, match="prompt 0 of 1 has 0 tokens"):
        engine.score_next([[]], [1], policy=BASE)


def test_a_policy_that_was_not_loaded_is_refused(engine: Engine, prompts: list[list[int]]) -> None:
    other = ADAPTED.model_copy(update={"version": "iteration-007"})
    with pytest.raises(BadConfigError, match="iteration-007 was not loaded"):
        engine.score_next(prompts, [1], policy=other)


def test_weights_that_are_no_numbers_are_refused_whatever_is_asked(
    context: StageContext[Any], tmp_path: Path, prompts: list[list[int]]
) -> None:
    break_weights(Path(shutil.copytree(context.layout.root / "model", tmp_path / "broken")))
    inputs = {**context.inputs, WHOLE.version: (tmp_path / "broken",)}
    engine = start_engine(dataclasses.replace(context, inputs=inputs), [BASE, WHOLE])
    refusal = "the policy iteration-001 gives a token the log-probability nan: its training has diverged"
    asked: list[Callable[[Policy], object]] = [
        lambda policy: engine.sample(prompts, Sampling(1.0, max_tokens=4), policy=policy, seeds=[1, 2, 3]),
        lambda policy: engine.score_next(prompts, [5, 6], policy=policy),
        lambda policy: engine.score_continuations(prompts, prompts, policy=policy),
    ]
    for ask in asked:
        assert ask(BASE)
        with pytest.raises(BadInputError, match=refusal):
            ask(WHOLE)


def test_whole_weights_take_turns_with_the_base_models(context: StageContext[Any], prompts: list[list[int]]) -> None:
    engine = start_engine(context, [BASE, WHOLE])
    digits = DIGITS.tokens(engine.tokenizer, "Score: ")
    for policy in (WHOLE, BASE, WHOLE):
        for prompt, row in zip(prompts, engine.score_next(prompts, digits, policy=policy), strict=True):
            wanted = reference(context.layout.root, policy, prompt)[-1, list(digits)].tolist()
            assert row == pytest.approx(wanted, abs=1e-4)


def test_the_base_models_weights_are_read_when_they_are_asked_for(
    context: StageContext[Any], prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    folders: list[str] = []
    read = DefaultModelLoader.get_all_weights

    def get_all_weights(self: Any, model_config: Any, model: Any) -> Any:
        folders.append(Path(model_config.model).name)
        return read(self, model_config, model)

    monkeypatch.setattr(DefaultModelLoader, "get_all_weights", get_all_weights)
    engine = start_engine(context, [WHOLE])
    assert folders == [], "an engine for whole weights starts without any"
    digits = DIGITS.tokens(engine.tokenizer, "Score: ")
    for policy, read_by_then in ((WHOLE, ["whole"]), (WHOLE, ["whole"]), (BASE, ["whole", "model"])):
        row = engine.score_next(prompts[:1], digits, policy=policy)[0]
        wanted = reference(context.layout.root, policy, prompts[0])[-1, list(digits)].tolist()
        assert row == pytest.approx(wanted, abs=1e-4)
        assert folders == read_by_then


def test_adapters_and_whole_weights_do_not_mix(context: StageContext[Any]) -> None:
    with pytest.raises(BadConfigError, match=r"training\.method cannot change within a run"):
        start_engine(context, [ADAPTED, WHOLE])
