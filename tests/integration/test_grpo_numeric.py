"""Loss and gradients of TRL under DeepSpeed ZeRO-2 against a float64 reference written from the formulas."""

import math
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import BASE_POLICY
from dynalign_contract.records import BATCH, Row, read_rows, write_rows
from dynalign_contract.settings import (
    AdvantageScale,
    KlReference,
    KlSettings,
    LoraSettings,
    LossAggregation,
    TrainingSettings,
)
from dynalign_trainer.grpo.batch import build_batch
from dynalign_trainer.grpo.job import TrainJob
from dynalign_trainer.grpo.launch import SINGLE_NODE, Processes, run_workers, worker_environment
from support.grpo_reference import load_parameters, reference_advantages, reference_logprobs, reference_loss
from support.tiny_qwen3 import write_tiny_qwen3
from support.training_data import make_judgements, make_rollouts, with_sampler

pytestmark = pytest.mark.slow

PROMPTS, CANDIDATES, MAX_TOKENS = 6, 4, 16
FLAT_GROUP, UNSCORED, REJECTED = "p002", ("p001", 2), ("p004", 0)
BASE, START = KlReference.BASE, KlReference.ITERATION_START
TOKENS, SEQUENCES, CONSTANT = LossAggregation.TOKEN_MEAN, LossAggregation.SEQUENCE_MEAN, LossAggregation.CONSTANT

CASES = {
    "dapo": (TOKENS, AdvantageScale.GROUP, KlSettings()),
    "dapo-kl-base": (TOKENS, AdvantageScale.BATCH, KlSettings(coefficient=0.1, reference=BASE)),
    "dapo-kl-start": (TOKENS, AdvantageScale.GROUP, KlSettings(coefficient=0.1, reference=START)),
    "grpo-kl-base": (SEQUENCES, AdvantageScale.GROUP, KlSettings(coefficient=0.1, reference=BASE)),
    "dr-grpo-kl-start": (CONSTANT, AdvantageScale.NONE, KlSettings(coefficient=0.1, reference=START)),
}


@dataclass(frozen=True)
class Probed:
    """The same recorded groups, trained on in every case."""

    folder: Path
    model: Path
    adapter: Path
    rollouts: tuple[Row, ...]
    rewards: dict[tuple[str, int], float]


def settings_of(case: str) -> TrainingSettings:
    aggregation, scale, kl = CASES[case]
    return TrainingSettings(
        aggregation=aggregation,
        scale=scale,
        kl=kl,
        prompts_per_step=2,
        micro_batch=3,
        mask_truncated=True,
        learning_rate=1e-3,
        max_grad_norm=1000,
        zero_stage=2,
        lora=LoraSettings(rank=4, alpha=8),
    )


def write_random_adapter(model: Path, folder: Path) -> Path:
    """An adapter that, unlike a fresh one, has an effect: base and start of the iteration differ."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    lora = settings_of("dapo").lora
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.target_modules))
    policy = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    policy.save_pretrained(folder)
    return folder


def load_float64(model: Path, adapter: Path) -> Any:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    return PeftModel.from_pretrained(base, adapter, is_trainable=True, autocast_adapter_dtype=False).double().eval()


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probed]:
    """All cases, trained by one launch of torchrun."""
    folder = tmp_path_factory.mktemp("numeric")
    model = write_tiny_qwen3(folder / "model")
    adapter = write_random_adapter(model, folder / "adapter")
    rollouts = with_sampler(make_rollouts(PROMPTS, CANDIDATES), load_float64(model, adapter), noise=0.15)
    for row in rollouts:
        if (row["prompt_id"], row["candidate"]) == REJECTED:
            row["logprobs"] = [value - 2.0 for value in row["logprobs"]]
    judgements = make_judgements(rollouts)
    for row in judgements:
        if row["prompt_id"] == FLAT_GROUP:
            row["reward"] = 0.5
        if (row["prompt_id"], row["candidate"]) == UNSCORED:
            row["reward"] = math.nan
    jobs = []
    for case in CASES:
        settings, work = settings_of(case), folder / case
        batch = build_batch(rollouts, judgements, settings, policy=BASE_POLICY, seed=3)
        write_rows(work / "batch.parquet", batch.rows, BATCH)
        job = TrainJob(
            model=model,
            adapter=adapter,
            batch=work / "batch.parquet",
            work=work,
            output=work,
            training=settings,
            temperature=1.0,
            max_tokens=MAX_TOKENS,
            group_size=batch.group_size,
            iteration=0,
            config_digest="sha256:" + "0" * 64,
            seed=0,
        )
        (work / "job.json").write_text(job.to_json())
        jobs.append(str(work / "job.json"))
    script = Path(__file__).parents[1] / "support" / "grpo_probe.py"
    torchrun = [sys.executable, "-m", "torch.distributed.run", *SINGLE_NODE.arguments]
    environment = worker_environment(Processes(count=1, threads=2), SINGLE_NODE, gpus=0)
    run_workers([*torchrun, "--nproc-per-node", "1", str(script), *jobs], environment, watch=lambda: None)
    rewards = {(row["prompt_id"], row["candidate"]): row["reward"] for row in judgements}
    yield Probed(folder, model, adapter, tuple(rollouts), rewards)
    shutil.rmtree(folder)


def expected_rows(probed: Probed, case: str, step: int) -> list[tuple[Row, float]]:
    """Rollouts that carry loss in a step, with advantages that owe nothing to the code under test."""
    settings = settings_of(case)
    prompts = {r["prompt_id"] for r in read_rows(probed.folder / case / "batch.parquet", BATCH) if r["step"] == step}
    chosen = []
    for prompt in sorted(prompts):
        group = [row for row in probed.rollouts if row["prompt_id"] == prompt]
        rewards = [probed.rewards[prompt, row["candidate"]] for row in group]
        advantages = reference_advantages(rewards, settings.scale, list(probed.rewards.values()))
        for row, advantage in zip(group, advantages, strict=True):
            key = (prompt, row["candidate"])
            if key not in (UNSCORED, REJECTED) and row["finish_reason"] == "stop":
                chosen.append((row, advantage))
    return chosen


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_equal_the_float64_reference(probed: Probed, case: str) -> None:
    import torch

    settings = settings_of(case)
    record = torch.load(probed.folder / case / "probe.pt")
    model = load_float64(probed.model, probed.adapter)
    start = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    # Five of six groups have spread: two full steps, and one with a single group and blanks to fill it.
    assert len(record["steps"]) == 3
    assert record["rejected"] == 1
    for step, seen in enumerate(record["steps"]):
        rows = expected_rows(probed, case, step)
        references = [reference_logprobs(model, row, settings.kl.reference, start) for row, _ in rows]
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
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None
                worst = (seen["grads"][name].double() - parameter.grad).abs().max().item()
                assert worst < 1e-5, f"step {step}, {name}"
        assert any(gradient.abs().max() > 1e-3 for gradient in seen["grads"].values())
