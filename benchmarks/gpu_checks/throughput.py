"""LoRA training of a model with the shape of Qwen3-8B: tokens per second, share of the GPU's peak, memory.

One engine trains with every setting in turn. The share is that of model FLOPs (MFU): 2 a parameter and token forward
and 2 backward, because a frozen weight gets no gradient; the head, at completion tokens only, likewise; attention's
own and what checkpointing computes again are not counted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.gpu_checks.finding import Finding, Place
from benchmarks.gpu_checks.older_torch import admit_grouped_heads
from benchmarks.gpu_checks.timing import peak_gib
from dynalign_contract.accelerators import accelerator_of
from dynalign_contract.records import BatchRow
from dynalign_trainer.train.job import StepReport, TrainJob, read_reports
from dynalign_trainer.train.packed.activations import set_recomputation
from dynalign_trainer.train.packed.engine import start_distributed, start_engine
from dynalign_trainer.train.packed.packing import PackPlan, plan_packs
from dynalign_trainer.train.packed.trainer import PackedTrainer
from dynalign_trainer.train.policy.policy import causal_lm
from lab.recorded_groups import draw_groups
from lab.training_jobs import TINY_MODEL, be_the_only_rank, make_job, write_batch, write_model

_STEPS: Final = 3
"""The first one of each setting is not timed."""
_QWEN3_8B: Final = {
    "vocab_size": 151_936,
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 12_288,
}


@dataclass(frozen=True)
class _Size:
    """What is trained."""

    shape: Mapping[str, int]
    budgets: tuple[int, ...]
    prompt: int
    lengths: tuple[int, ...]


_FULL_SIZE: Final = _Size(_QWEN3_8B, (4096, 8192, 16_384), 200, (900, 700, 1000, 400))
_TINY_SIZE: Final = _Size(TINY_MODEL, (128, 256), 16, (40, 20))


def check(place: Place) -> Finding:
    """Every budget with and without gradient checkpointing; the default setting has to fit."""
    admit_grouped_heads()
    be_the_only_rank()
    size = _FULL_SIZE if place.is_cuda else _TINY_SIZE
    rows = draw_groups(
        steps=_STEPS,
        groups=2,
        candidates=8,
        prompt=size.prompt,
        lengths=size.lengths,
        vocabulary=size.shape["vocab_size"],
    )
    model = write_model(place.folder / "model", place.device, size.shape)
    if place.is_cuda:
        torch.cuda.empty_cache()
    batch = write_batch(place.folder / "batch", rows)
    start_distributed()
    engine = start_engine(_job(place.folder / "first", model, batch, size.budgets[0]))
    peak = _peak_flops(place)
    found: dict[str, Any] = {}
    for checkpointing, budget in product((True, False), size.budgets):
        set_recomputation(engine, on=checkpointing)
        name = f"{budget} {'with' if checkpointing else 'without'} checkpointing"
        job = _job(place.folder / name.replace(" ", "-"), model, batch, budget)
        found[name] = _measure(engine, job, rows, peak)
        if "tokens_per_second" not in found[name]:
            break  # an engine that ran out of memory in a backward pass is of no further use
    fitting = {name: one for name, one in found.items() if "tokens_per_second" in one}
    first = next(iter(found))
    if first not in fitting:
        return Finding({"settings": found}, (f"{first} does not fit: {found[first]}",))
    best = max(fitting, key=lambda name: fitting[name]["tokens_per_second"])
    return Finding({"best": best, **fitting[best], "settings": found})


def _job(work: Path, model: Path, batch: Path, budget: int) -> TrainJob:
    settings: dict[str, Any] = {"prompts_per_step": 2, "checkpoint_steps": 10_000, "tokens_per_micro_batch": budget}
    return make_job(model=model, batch=batch, work=work, **settings)


def _measure(engine: Any, job: TrainJob, rows: list[BatchRow], peak: float | None) -> dict[str, Any]:
    plan = plan_packs(rows, ranks=1, budget=job.training.tokens_per_pass)
    trainer = PackedTrainer(job, rows, plan, engine)
    try:
        memory = peak_gib(trainer.train)
    except torch.OutOfMemoryError as error:
        return {"out_of_memory": str(error).split(". ")[0]}
    reports = read_reports(job.work)[1:]
    tokens = sum(_computed(plan, report) for report in reports)
    seconds = sum(report.seconds for report in reports)
    surveyed = sum(pack.tokens for step in plan.steps for pack in step)
    values: dict[str, Any] = {
        "tokens_per_second": round(tokens / seconds),
        "survey_tokens_per_second": round(surveyed / trainer.reference_seconds),
        "passes": sum(plan.micro_batches(report.step - 1) for report in reports),
    }
    if memory is not None and peak is not None:
        predicted = sum(len(row["completion_ids"]) for row in rows if row["step"] > 0)
        flops = 4 * (_backbone(engine) * tokens + _head(engine) * predicted)
        values |= {"mfu": round(flops / seconds / peak, 3)}
    if memory is not None:
        values |= {"peak_gib": round(memory + _resident_gib(), 1)}
    return values


def _computed(plan: PackPlan, report: StepReport) -> int:
    """Positions of a step, shared prompts once."""
    return sum(pack.tokens for pack in plan.steps[report.step - 1])


def _backbone(engine: Any) -> int:
    model = causal_lm(engine.module.policy)
    return sum(parameter.numel() for parameter in model.base_model.layers.parameters())


def _head(engine: Any) -> int:
    return math.prod(causal_lm(engine.module.policy).get_output_embeddings().weight.shape)


def _resident_gib() -> float:
    return torch.cuda.memory_allocated() / 2**30


def _peak_flops(place: Place) -> float | None:
    """The GPU's peak as estimates take it; None for one that they do not know."""
    known = accelerator_of(torch.cuda.get_device_name(0)) if place.is_cuda else None
    return None if known is None else known.flops
