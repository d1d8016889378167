"""Published figures of other systems beside what `dynalign estimate`'s own code says of the same work."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from statistics import median
from typing import Final

from dynalign_contract.accelerators import ACCELERATORS, Hardware
from dynalign_contract.model_shape import ModelShape
from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec
from dynalign_operator.cli.check_files import find_objective
from dynalign_operator.cli.load import load_run_file
from dynalign_operator.estimate.hardware import GPU_EFFICIENCY
from dynalign_operator.estimate.placement import Placement
from dynalign_operator.estimate.run_estimate import estimate_run
from dynalign_operator.estimate.shapes import known_shape
from dynalign_operator.estimate.timing import Machine, time_of
from dynalign_operator.estimate.workload import Work
from support.pages import ROOT

_NEMO: Final = "NeMo-RL 0.6, its README"
_PRIME: Final = "prime-rl, its benchmarks"
_RECORDED: Final = ROOT / "docs" / "results"
_PASSES: Final = 6.0
"""Operations for a token and weight of LoRA: forward, backward through frozen weights, forward again for checkpointing."""


@dataclass(frozen=True)
class Figure:
    """One published figure, and ours."""

    what: str
    source: str
    unit: str
    published: float
    ours: Callable[[], float]
    remark: str = ""

    @property
    def ratio(self) -> float:
        """Ours divided by theirs."""
        return self.ours() / self.published


def figures() -> tuple[Figure, ...]:
    """Every figure that the estimate can express."""
    lora = "the factor `training` is this figure"
    return (
        Figure(
            "GRPO step, Qwen3-30B-A3B, 2,048 answers of 3,200 tokens, 32 H100",
            *(_NEMO, "s", 192, lambda: _step_seconds(Hardware.H100, 4)),
            "generate and train, engines warm",
        ),
        Figure(
            "the same", _NEMO, "tokens/s/GPU", 1102, lambda: _tokens_per_gpu(Hardware.H100, 4), "prompts not counted"
        ),
        Figure(
            "the same, 16 GB200",
            *(_NEMO, "tokens/s/GPU", 1910, lambda: _tokens_per_gpu(Hardware.B200, 2)),
            "taken as 16 B200",
        ),
        Figure(
            "LoRA, Qwen3-4B, sequences of 16k, 8 H100",
            *(_PRIME, "tokens/s", 48_700, lambda: _lora_tokens("hf://Qwen/Qwen3-4B", 8)),
            "attention over long sequences is not counted here",
        ),
        Figure(
            "the same, 1 H100", _PRIME, "tokens/s", 6_230, lambda: _lora_tokens("hf://Qwen/Qwen3-4B", 1), "as above"
        ),
        Figure("RL with LoRA, Qwen3-4B, 16k, 8 H100", _PRIME, "% MFU", 21.2, _mfu, lora),
        Figure("RL, all weights, Qwen3-4B, 16k, 8 H100", _PRIME, "% MFU", 13.9, _mfu),
        Figure("RL with LoRA, Qwen3-4B, 65k, 8 H100", _PRIME, "% MFU", 36.8, _mfu),
        Figure("RL with LoRA, Qwen3-30B-A3B, 16k, 8 H100", _PRIME, "% MFU", 15.3, _mfu),
        Figure("RL with LoRA, Qwen3-4B, 1 H100", _PRIME, "% MFU", 21.7, _mfu),
        Figure("SFT, Qwen3-4B, 8 H100", _PRIME, "% MFU", 26.6, _mfu),
        Figure(
            "vLLM, gpt-oss-20b, ShareGPT, 1 H100, tokens in and out",
            *("gpustack", "tokens/s", 19_100, _share_gpt),
            "1,000 requests of 217 + 201 tokens assumed; weights in BFloat16, theirs MXFP4",
        ),
        Figure(
            "`examples/demo.yaml` as a whole, 2 CPU cores",
            *("measured here", "s", 487, _demo_seconds),
            "three factors for CPUs were fitted to an earlier demo, of 361 s",
        ),
        Figure(
            "sampling of [a recorded run](results/README.md), 2 CPU cores",
            *("measured here", "tokens/s", _recorded(Stage.GENERATE), lambda: _recorded_ours(Stage.GENERATE)),
            "median of 5 iterations, beside other work",
        ),
        Figure(
            "training of the same run",
            *("measured here", "tokens/s", _recorded(Stage.TRAIN), lambda: _recorded_ours(Stage.TRAIN)),
            "as above; tokens of answers",
        ),
    )


def not_expressible() -> dict[str, str]:
    """Published figures that the estimate cannot say anything about, and why."""
    return {
        "verl, fully asynchronous, Qwen2.5-Math-7B: 790 s a step on 32 H20, 356 s on 128": "the table has no H20, and the "
        "lengths of the answers are given as an upper bound only",
        "NeMo-RL one step off: 152 s, 1,414 tokens/s/GPU": "no sampling beside training",
        "HybridFlow 1.53 to 20.57 times, OpenRLHF 1.22 to 1.68 times, AReaL 2.77 times, TRL colocate 1.26 to 1.73 times "
        "another system": "ratios of two other systems",
        "vLLM, gpt-oss-20b, short prompts: 32,600 tokens/s": "lengths of prompts and answers are not given",
    }


def _shape(uri: str) -> ModelShape:
    found = known_shape(uri)
    assert found is not None, uri
    return found


def _step_seconds(hardware: Hardware, nodes: int) -> float:
    spec = AlignmentRunSpec.model_validate(
        {
            "model": {"uri": "hf://Qwen/Qwen3-30B-A3B"},
            "engine": {"maxLength": 16384, "tensorParallel": 2},
            "prompts": {"perIteration": 64},
            "generation": {"candidates": 32, "maxTokens": 4266, "shards": 4 * nodes, "promptsPerPart": 64},
            "training": {
                "method": "Full",
                "nodes": nodes,
                "gpusPerNode": 8,
                "zeroStage": 3,
                "promptsPerStep": 64,
            },
            "storage": {"size": "4Ti"},
        }
    )
    found = estimate_run(spec, None, _shape(spec.model.uri), hardware)
    return sum(entry.work_seconds for entry in found.stages if entry.stage in (Stage.GENERATE, Stage.TRAIN))


def _tokens_per_gpu(hardware: Hardware, nodes: int) -> float:
    return 2048 * 3200 / _step_seconds(hardware, nodes) / (8 * nodes)


def _machine(uri: str, gpus: int) -> Machine:
    return Machine(ACCELERATORS[Hardware.H100], GPU_EFFICIENCY, _shape(uri), Placement(1, gpus))


def _lora_tokens(uri: str, gpus: int) -> float:
    return 1e6 / time_of(Work(Stage.TRAIN, trained=1e6, passes=_PASSES), _machine(uri, gpus)).train


def _mfu() -> float:
    return 100 * GPU_EFFICIENCY.training.value


def _demo_seconds() -> float:
    run_file = load_run_file(ROOT / "examples" / "demo.yaml")
    spec = run_file.run.spec
    return estimate_run(spec, find_objective(run_file), _shape(spec.model.uri), Hardware.CPU).run_seconds


@cache
def _recorded(stage: Stage, metric: str = "tokens_per_second") -> float:
    """Median over the iterations of the run whose numbers docs/results has."""
    iterations = json.loads((_RECORDED / "smollm2-five-iterations.json").read_text())["iterations"]
    return round(float(median(iteration["stages"][stage][metric] for iteration in iterations)), 1)


def _recorded_ours(stage: Stage) -> float:
    """Tokens of answers a second that the estimate has for that run's own mean length."""
    run_file = load_run_file(_RECORDED / "smollm2-five-iterations.yaml")
    spec = run_file.run.spec
    share = _recorded(Stage.GENERATE, "mean_length") / spec.generation.max_tokens
    shape = _shape(spec.model.uri)
    found = estimate_run(spec, find_objective(run_file), shape, Hardware.CPU, answer_share=share)
    entries = {entry.stage: entry for entry in found.stages}
    return entries[Stage.GENERATE].tokens_sampled / entries[stage].work_seconds


def _share_gpt() -> float:
    work = Work(Stage.GENERATE, sequences=1000, longest=402, context=217 + 201 / 2)
    work = replace(work, read=1000 * 217, written=1000 * 201)
    time = time_of(work, _machine("hf://openai/gpt-oss-20b", 1))
    return (work.read + work.written) / (time.read + time.sample)
