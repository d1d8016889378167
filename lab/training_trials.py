"""Trainings by the train stage's worker: bfloat16 against float32, and resumed against undisturbed.

A resumed worker first takes no step, so that the policy it writes is what the checkpoint held; another one takes the
last step again.
"""

import gc
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file

from dynalign_contract.errors import BadConfigError
from dynalign_contract.settings import DType, KlSettings, TrainingMethod
from dynalign_trainer.train.checkpoints import checkpoint_folder
from dynalign_trainer.train.job import Mismatch, read_reports
from dynalign_trainer.train.processes.worker import train
from lab.recorded_groups import draw_groups
from lab.training_jobs import TINY_MODEL, be_the_only_rank, make_job, write_batch, write_model

_STEPS: Final = 3
_MIDDLE: Final = {
    "vocab_size": 16_384,
    "hidden_size": 1024,
    "num_hidden_layers": 3,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
}
_LORA, _FULL = TrainingMethod.LORA, TrainingMethod.FULL
_RATES: Final = {_LORA: 1e-4, _FULL: 1e-5}
EVERY_CASE: Final = (
    *((method, zero, True) for method in (_LORA, _FULL) for zero in (0, 1, 2, 3)),
    (_LORA, 2, False),
)
"""Method, ZeRO stage, gradient checkpointing."""
FEW_CASES: Final = ((_LORA, 0, True), (_LORA, 2, False), (_LORA, 3, True), (_FULL, 0, True), (_FULL, 2, True))
"""One of each kind of optimiser state."""
_BANDS: Final = {"loss": 5e-3, "kl": 5e-3, "grad_norm": 5e-2, "logprob_difference": 5e-2, "ratio_mean": 5e-3}
"""Largest difference from float32, relative to the larger of the value and 1 but for the norm."""
_RESTORED: Final = 1e-7
_REPEATED: Final = 0.1
"""Largest distance of a repeated step's policy from the undisturbed one, in units of what training moved."""


@dataclass(frozen=True)
class _Trained:
    """What a worker left."""

    values: Mapping[str, float]
    policy: Mapping[str, torch.Tensor]
    moved: float


@dataclass(frozen=True)
class TrialSize:
    """What is trained."""

    device: str
    shape: Mapping[str, int]
    lengths: tuple[int, ...]
    """Of completions, in tokens, by turns."""
    budget: int
    """Tokens in one pass."""


MIDDLE_ON_CUDA: Final = TrialSize("cuda", _MIDDLE, (400, 1, 77, 130), 1024)
TINY_ON_CPU: Final = TrialSize("cpu", TINY_MODEL, (20, 1, 7, 5), 128)


def compare_trainings(
    folder: Path, size: TrialSize, cases: Iterable[tuple[TrainingMethod, int, bool]]
) -> tuple[dict[str, Any], list[str]]:
    """Train with each kind of optimiser state, and once more from its checkpoints.

    Returns what was measured by case, and a sentence for each difference that is too large.
    """
    be_the_only_rank()
    trials = _Trials(folder, size)
    # DeepSpeed tells no norm of the gradients in float32 with ZeRO 0.
    wanted = {method: trials.train(f"{method}-float32", method, 1, dtype=DType.FLOAT32) for method in (_LORA, _FULL)}
    values: dict[str, Any] = {f"{method} float32": dict(one.values) for method, one in wanted.items()}
    faults: list[str] = []
    for method, zero, recomputes in cases:
        name = f"{method} ZeRO-{zero}{'' if recomputes else ' without gradient checkpointing'}"
        if method is _FULL and zero == 0:
            faults += trials.refusal(name)
            continue
        found = trials.train(name, method, zero, gradient_checkpointing=recomputes)
        values[name] = dict(found.values)
        faults += _far_from(name, found.values, wanted[method].values)
        if recomputes:
            faults += trials.resumed(name, method, zero, found, values[name])
        trials.forget(name)
    return values, faults


class _Trials:
    """Trainings of one model on one batch."""

    def __init__(self, folder: Path, size: TrialSize) -> None:
        vocabulary = size.shape["vocab_size"]
        rows = draw_groups(steps=_STEPS, groups=4, candidates=4, prompt=48, lengths=size.lengths, vocabulary=vocabulary)
        self._folder = folder
        self._budget = size.budget
        self._model = write_model(folder / "model", size.device, size.shape)
        self._batch = write_batch(folder / "batch", rows)

    def train(self, name: str, method: TrainingMethod, zero: int, **options: Any) -> _Trained:
        """One worker, start to end. Raises StageError as the stage's would."""
        job = make_job(
            model=self._model,
            batch=self._batch,
            work=self._folder / name,
            method=method,
            zero_stage=zero,
            learning_rate=_RATES[method],
            prompts_per_step=4,
            tokens_per_micro_batch=self._budget,
            checkpoint_steps=1,
            kl=KlSettings(coefficient=0.05),
            **options,
        )
        result = train(job)
        gc.collect()  # an engine that is still alive would have the next one's weights spread over ranks
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        policy: dict[str, torch.Tensor] = {}
        for path in sorted(job.output.glob("*.safetensors")):
            policy |= load_file(path)
        return _Trained(_measured(job.work, result.mismatch), policy, result.norm_change)

    def refusal(self, name: str) -> list[str]:
        """All weights in bfloat16 without float32 copies of them: nothing that training moves would survive."""
        try:
            self.train(name, _FULL, 0)
        except BadConfigError:
            return []
        return [f"{name} was not refused"]

    def resumed(
        self, name: str, method: TrainingMethod, zero: int, whole: _Trained, values: dict[str, Any]
    ) -> list[str]:
        """Resume after the last step and before it; what was measured is added to `values`."""
        distances = {}
        for step in (_STEPS, _STEPS - 1):
            again = f"{name} from {step}"
            found = self.train(again, method, zero, resume=checkpoint_folder(self._folder / name, step))
            distances[step] = _distance(found.policy, whole.policy)
            self.forget(again)
        values |= {"restored": distances[_STEPS], "repeated": distances[_STEPS - 1]}
        faults = []
        if distances[_STEPS] > _RESTORED:
            faults.append(
                f"{name}: the policy of its checkpoint is {distances[_STEPS]:.2g} from the one that was saved"
            )
        if distances[_STEPS - 1] > _REPEATED * whole.moved:
            faults.append(
                f"{name}: resumed it ends {distances[_STEPS - 1]:.2g} from undisturbed, moved {whole.moved:.2g}"
            )
        return faults

    def forget(self, name: str) -> None:
        """Remove what a training wrote."""
        shutil.rmtree(self._folder / name)


def _measured(work: Path, mismatch: Mismatch) -> dict[str, float]:
    reports = read_reports(work)
    found: dict[str, float] = {
        "logprob_difference": mismatch.logprob_difference or 0.0,
        "ratio_mean": mismatch.ratio_mean or 0.0,
    }
    for report in reports:
        steps = {"loss": report.loss, "kl": report.kl, "grad_norm": report.grad_norm or 0.0}
        found |= {f"{name} {report.step}": value for name, value in steps.items()}
    return {name: round(value, 6) for name, value in found.items()}


def _far_from(name: str, found: Mapping[str, float], wanted: Mapping[str, float]) -> list[str]:
    faults = []
    for measure, value in wanted.items():
        kind = measure.split(" ")[0]
        size = abs(value) if kind == "grad_norm" else max(1.0, abs(value))
        if not abs(found[measure] - value) <= _BANDS[kind] * size:
            faults.append(f"{name}: {measure} is {found[measure]}, in float32 {value}")
    return faults


def _distance(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    if a.keys() != b.keys():
        return float("inf")
    return float(sum(float((a[name].double() - b[name].double()).square().sum()) for name in a) ** 0.5)
