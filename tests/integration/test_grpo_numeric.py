"""Losses and gradients of both backends under DeepSpeed against a float64 reference written from the formulas."""

import math
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import BASE_POLICY
from dynalign_contract.records import BATCH, JudgementRow, RolloutRow, read_rows, write_rows
from dynalign_contract.settings import (
    AdvantageScale,
    ClipSettings,
    KlReference,
    KlSettings,
    LoraSettings,
    LossAggregation,
    TrainingBackend,
    TrainingMethod,
    TrainingSettings,
)
from dynalign_trainer.train.batch import build_batch
from dynalign_trainer.train.epochs import order_steps
from dynalign_trainer.train.job import TrainJob
from dynalign_trainer.train.processes.launch import SINGLE_NODE, Processes, run_workers, worker_environment
from lab.tiny_qwen3 import write_tiny_qwen3
from support.grpo_reference import load_parameters, reference_advantages, reference_logprobs, reference_loss
from support.training_data import make_judgements, make_rollouts, with_sampler

pytestmark = pytest.mark.slow

PROMPTS, CANDIDATES, MAX_TOKENS, SEED = 6, 4, 16, 0
FLAT_GROUP, UNSCORED, REJECTED = "p002", ("p001", 2), ("p004", 0)
NO_KL = KlSettings()
BASE = KlSettings(coefficient=0.1, reference=KlReference.BASE)
START = KlSettings(coefficient=0.1, reference=KlReference.ITERATION_START)
GROUP, BATCHED, UNSCALED = AdvantageScale.GROUP, AdvantageScale.BATCH, AdvantageScale.NONE
TOKENS, SEQUENCES = LossAggregation.TOKEN_MEAN, LossAggregation.SEQUENCE_MEAN
CONSTANT, RATIO = LossAggregation.CONSTANT, LossAggregation.SEQUENCE_RATIO
ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PACKED, TRL = TrainingBackend.PACKED, TrainingBackend.TRL
FULL = TrainingMethod.FULL


@dataclass(frozen=True)
class Case:
    """One configuration, trained by both backends."""

    aggregation: LossAggregation
    scale: AdvantageScale
    kl: KlSettings = NO_KL
    zero: int = 2
    ranks: int = 1
    passes: int = 1
    """Forward and backward passes of a rank in a full step (gradient accumulation)."""
    mask_truncated: bool = True
    dual: float | None = None
    method: TrainingMethod = TrainingMethod.LORA
    epochs: int = 1

    def settings(self, backend: TrainingBackend) -> TrainingSettings:
        """Both backends cut a full step of 8 rows, of which at least 6 carry loss, into `passes` a rank."""
        return TrainingSettings(
            backend=backend,
            method=self.method,
            aggregation=self.aggregation,
            scale=self.scale,
            kl=self.kl,
            clip=ClipSettings(dual=self.dual),
            prompts_per_step=2,
            epochs=self.epochs,
            micro_batch=8 if self.passes == 1 else (1 if self.ranks == 2 else 2),
            tokens_per_micro_batch=4096 if self.passes == 1 else (16 if self.ranks == 2 else 24),
            mask_truncated=self.mask_truncated,
            learning_rate=1e-3,
            max_grad_norm=1000,
            zero_stage=self.zero,
            lora=LoraSettings(rank=4, alpha=8, target_modules=ADAPTED),
        )


CASES = {
    "dapo": Case(TOKENS, GROUP),
    "dapo-batch-zero0": Case(TOKENS, BATCHED, BASE, zero=0, mask_truncated=False),
    "dapo-start-zero3": Case(TOKENS, GROUP, START, zero=3, passes=4, mask_truncated=False),
    "dapo-dual": Case(TOKENS, UNSCALED, dual=1.3, passes=4, mask_truncated=False),
    "grpo-base": Case(SEQUENCES, GROUP, BASE, passes=4, mask_truncated=False),
    "dr-grpo-start-zero0": Case(CONSTANT, UNSCALED, START, zero=0, passes=4, mask_truncated=False),
    "dr-grpo-zero3": Case(CONSTANT, BATCHED, zero=3),
    "gspo": Case(RATIO, GROUP, mask_truncated=False),
    "gspo-base-zero3": Case(RATIO, UNSCALED, BASE, zero=3, passes=4, mask_truncated=False),
    "dapo-base-2-ranks": Case(TOKENS, GROUP, BASE, ranks=2, passes=4, mask_truncated=False),
    "grpo-zero3-2-ranks": Case(SEQUENCES, BATCHED, zero=3, ranks=2),
    "dr-grpo-base-zero3-2-ranks": Case(CONSTANT, GROUP, BASE, zero=3, ranks=2, passes=4, mask_truncated=False),
    "gspo-start-zero0-2-ranks": Case(RATIO, BATCHED, START, zero=0, ranks=2, passes=4, mask_truncated=False),
    "grpo-dual-zero0-2-ranks": Case(SEQUENCES, UNSCALED, zero=0, ranks=2, dual=1.3),
    "dapo-two-epochs": Case(TOKENS, GROUP, BASE, passes=4, mask_truncated=False, epochs=2),
    "dr-grpo-three-epochs-2-ranks": Case(CONSTANT, GROUP, START, ranks=2, passes=4, mask_truncated=False, epochs=3),
    "full": Case(TOKENS, GROUP, method=FULL),
    "full-base-zero0": Case(SEQUENCES, BATCHED, BASE, zero=0, passes=4, mask_truncated=False, method=FULL),
    "full-start-zero3": Case(CONSTANT, GROUP, START, zero=3, passes=4, mask_truncated=False, method=FULL),
    "full-base-2-ranks": Case(RATIO, UNSCALED, BASE, ranks=2, passes=4, mask_truncated=False, method=FULL),
    "full-zero3-2-ranks": Case(TOKENS, BATCHED, zero=3, ranks=2, method=FULL),
}


@dataclass(frozen=True)
class Probed:
    """The same recorded groups, trained on in every case."""

    folder: Path
    model: Path
    starts: dict[TrainingMethod, Path]
    """The same policy as an adapter and as whole weights."""
    rollouts: tuple[RolloutRow, ...]
    rewards: dict[tuple[str, int], float]

    def record(self, case: str, backend: TrainingBackend) -> dict[str, Any]:
        import torch

        found: dict[str, Any] = torch.load(self.folder / f"{case}-{backend}" / "probe.pt")
        return found


def write_random_adapter(model: Path, folder: Path) -> Path:
    """An adapter that, unlike a fresh one, has an effect: base and start of the iteration differ."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    lora = CASES["dapo"].settings(PACKED).adapter
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.target_modules))
    policy = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    policy.save_pretrained(folder)
    return folder


def write_merged(model: Path, adapter: Path, folder: Path) -> Path:
    """What the adapter makes of the model."""
    load_float64(model, adapter).merge_and_unload().float().save_pretrained(folder)
    return folder


def load_float64(model: Path, adapter: Path | None = None) -> Any:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64).eval()
    if adapter is None:
        return base
    return PeftModel.from_pretrained(base, adapter, is_trainable=True, autocast_adapter_dtype=False).double().eval()


def load_start(probed: Probed, method: TrainingMethod) -> Any:
    start = probed.starts[method]
    return load_float64(start) if method is FULL else load_float64(probed.model, start)


def write_job(probed: Probed, case: str, backend: TrainingBackend, judgements: list[JudgementRow]) -> Path:
    settings, work = CASES[case].settings(backend), probed.folder / f"{case}-{backend}"
    batch = build_batch(probed.rollouts, judgements, settings, policy=BASE_POLICY, seed=3)
    write_rows(work / "batch.parquet", batch.rows, BATCH)
    job = TrainJob(
        model=probed.model,
        start=probed.starts[CASES[case].method],
        batch=work / "batch.parquet",
        work=work,
        output=work,
        training=settings,
        temperature=1.0,
        max_tokens=MAX_TOKENS,
        group_size=batch.group_size,
        iteration=0,
        config_digest="sha256:" + "0" * 64,
        seed=SEED,
    )
    (work / "job.json").write_text(job.to_json())
    return work / "job.json"


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probed]:
    """All cases, trained by one launch of torchrun for each number of ranks."""
    folder = tmp_path_factory.mktemp("numeric")
    model = write_tiny_qwen3(folder / "model")
    adapter = write_random_adapter(model, folder / "adapter")
    rollouts = with_sampler(make_rollouts(PROMPTS, CANDIDATES), load_float64(model, adapter), noise=0.15)
    for row in rollouts:
        if (row["prompt_id"], row["candidate"]) == REJECTED:
            row["logprobs"] = [value - 2.0 for value in row["logprobs"]]
    judgements = make_judgements(rollouts)
    for judgement in judgements:
        if judgement["prompt_id"] == FLAT_GROUP:
            judgement["reward"] = 0.5
        if (judgement["prompt_id"], judgement["candidate"]) == UNSCORED:
            judgement["reward"] = math.nan
    rewards = {(row["prompt_id"], row["candidate"]): row["reward"] for row in judgements}
    starts = {TrainingMethod.LORA: adapter, FULL: write_merged(model, adapter, folder / "merged")}
    found = Probed(folder, model, starts, tuple(rollouts), rewards)
    script = Path(__file__).parents[1] / "support" / "grpo_probe.py"
    agent = [sys.executable, "-m", "dynalign_trainer.train.processes.agent", str(os.getpid())]  # tells of signals
    environment = worker_environment(Processes(count=1, threads=1), SINGLE_NODE, gpus=0)
    for ranks in (1, 2):
        chosen = [case for case in CASES if CASES[case].ranks == ranks]
        jobs = [str(write_job(found, case, backend, judgements)) for backend in (PACKED, TRL) for case in chosen]
        command = [*agent, *SINGLE_NODE.arguments, "--nproc-per-node", str(ranks), str(script), *jobs]
        run_workers(command, environment, watch=lambda: None)
    yield found
    shutil.rmtree(folder)


def expected_rows(probed: Probed, case: str, step: int) -> list[tuple[RolloutRow, float]]:
    """Rollouts that carry loss in a step, with advantages that owe nothing to the code under test."""
    batch = read_rows(probed.folder / f"{case}-{PACKED}" / "batch.parquet", BATCH)
    prompts = {row["prompt_id"] for row in batch if row["step"] == step}
    chosen = []
    for prompt in sorted(prompts):
        group = [row for row in probed.rollouts if row["prompt_id"] == prompt]
        rewards = [probed.rewards[prompt, row["candidate"]] for row in group]
        advantages = reference_advantages(rewards, CASES[case].scale, list(probed.rewards.values()))
        for row, advantage in zip(group, advantages, strict=True):
            key = (prompt, row["candidate"])
            masked = CASES[case].mask_truncated and row["finish_reason"] != "stop"
            if key not in (UNSCORED, REJECTED) and not masked:
                chosen.append((row, advantage))
    return chosen


def distance(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    """Euclidean distance of two gradients, as a share of the second one's length."""
    assert found.keys() == wanted.keys()
    gap = sum((found[name].double() - wanted[name].double()).square().sum().item() for name in wanted)
    return math.sqrt(gap / sum(g.double().square().sum().item() for g in wanted.values()))


@pytest.mark.parametrize("backend", [PACKED, TRL])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_equal_the_float64_reference(probed: Probed, case: str, backend: TrainingBackend) -> None:
    settings, record = CASES[case].settings(backend), probed.record(case, backend)
    model, base = load_start(probed, settings.method), load_float64(probed.model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    start = {name: p.detach().clone() for name, p in trained.items()}
    # Five of six groups have spread: two full steps, and one with a single group and blanks to fill it.
    order = order_steps(3, epochs=CASES[case].epochs, seed=SEED)
    assert len(record["steps"]) == len(order)
    assert record["rejected"] == 1
    assert record["passes"] >= CASES[case].passes
    for step, (taken, seen) in enumerate(zip(order, record["steps"], strict=True)):
        rows = expected_rows(probed, case, taken)
        references = [reference_logprobs(model, base, row, settings.kl.reference, start) for row, _ in rows]
        load_parameters(model, seen["params"])
        model.zero_grad()
        loss = reference_loss(
            model,
            rows,
            settings,
            references=references,
            full_step=settings.prompts_per_step * CANDIDATES,
            max_tokens=MAX_TOKENS,
        )
        loss.backward()
        assert seen["loss"] == pytest.approx(loss.item(), abs=1e-5), f"step {step}"
        assert distance(seen["grads"], {name: p.grad for name, p in trained.items()}) < 1e-5, f"step {step}"


@pytest.mark.parametrize("case", CASES)
def test_both_backends_begin_with_the_same_loss_and_gradients(probed: Probed, case: str) -> None:
    packed, trl = (probed.record(case, backend)["steps"][0] for backend in (PACKED, TRL))
    assert packed["loss"] == pytest.approx(trl["loss"], abs=1e-5)
    assert distance(packed["grads"], trl["grads"]) < 1e-5
