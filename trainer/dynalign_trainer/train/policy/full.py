"""All weights trained (`training.method: Full`): loaded, gathered, written.

A policy is a folder like the base model's: the same safetensors files with the same names, and config.json. Its tensors
are float32 whatever the trainer computes in: an iteration moves a weight by less than bfloat16 can tell apart.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dynalign_contract.errors import BadConfigError
from dynalign_contract.files import atomic_path
from dynalign_trainer.models.files import CONFIG, read_model_files, read_tensor_files
from dynalign_trainer.models.merging import file_tensors
from dynalign_trainer.runtime.importing import importing
from dynalign_trainer.runtime.machine import use_bfloat16
from dynalign_trainer.train.job import TrainJob
from dynalign_trainer.train.policy.fp32_weights import gather_fp32


def full_files(folder: Path) -> list[str]:
    """Names of the files of a policy, or of the same files of the base model."""
    files = read_model_files(folder)
    return [CONFIG, *files.index, *files.weights]


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's weights."""
    return [folder / name for name in read_model_files(folder).weights]


def load_full(job: TrainJob, attention: str | None = None) -> Any:
    """The model with the weights that training starts from, all of them trainable.

    Raises BadConfigError when its weights have other names in memory than in the base model's files, or when they would
    be trained in bfloat16 alone.
    """
    if use_bfloat16(job.dtype) and job.training.zero_stage == 0:
        raise BadConfigError(
            "spec.training.zeroStage is 0, with which method: Full would round every step to bfloat16. Write "
            "zeroStage: 1 or more, or engine.dtype: Float32."
        )
    model = _load(job, start_folder(job), attention)
    in_files = read_tensor_files(job.model)
    parameters = parameters_of(model)
    written = {id(parameter) for name, parameter in parameters.items() if name in in_files}
    if missing := sorted(name for name, parameter in parameters.items() if id(parameter) not in written):
        raise BadConfigError(
            f"spec.training.method is Full, but {type(model).__name__} trains {missing[0]}, which the model's files do "
            "not have, so its weights could not be written as they were read. Write method: LoRA."
        )
    return model


def load_base(job: TrainJob, attention: str | None = None) -> Any:
    """The base model, frozen, as the KL reference of a policy that has left it behind; every process holds all of it.

    Raises BadConfigError with ZeRO-3, whose point is that no process can.
    """
    if job.training.zero_stage == 3:
        raise BadConfigError(
            "spec.training.kl.reference is Base, for which method: Full needs the base model whole in every process, "
            "and zeroStage is 3. Write reference: IterationStart, or a lower zeroStage."
        )
    return _load(job, job.model, attention).requires_grad_(requires_grad=False).eval()


def start_folder(job: TrainJob) -> Path:
    """Where the weights lie that training starts from."""
    return job.start or job.model


def parameters_of(model: Any) -> dict[str, Any]:
    """Parameters by name; tied ones have several."""
    return dict(model.named_parameters(remove_duplicate=False))


def starting_tensors(job: TrainJob) -> Iterator[tuple[str, Any]]:
    """Names of parameters and their values before training, as they are stored."""
    for path in weight_files(start_folder(job)):
        yield from file_tensors(path)


class FullWriter:
    """Writes all weights; what they were is in files."""

    def __init__(self, job: TrainJob, model: Any) -> None:
        self._job = job
        self._model = model

    def write(self) -> float:
        """Gather, compare and write file by file; a collective call in which rank 0 writes.

        Returns the Euclidean distance to the starting weights; 0 on other ranks.
        """
        import torch.distributed as dist
        from safetensors.torch import save_file

        job, parameters, is_first = self._job, parameters_of(self._model), dist.get_rank() == 0
        squares = 0.0
        for path in weight_files(start_folder(job)):
            tensors = {}
            for name, before in file_tensors(path):
                value = gather_fp32(parameters[name]) if name in parameters else before
                if is_first:
                    tensors[name] = value.detach().float().cpu().clone().contiguous()
                    squares += float((tensors[name] - before.float()).double().square().sum())
            if is_first:
                with atomic_path(job.output / path.name) as temporary:
                    save_file(tensors, os.fspath(temporary), metadata={"format": "pt"})
        if is_first:
            _copy(job, [name for name in full_files(start_folder(job)) if not name.endswith(".safetensors")])
        return float(squares**0.5)


def copy_full(job: TrainJob) -> None:
    """Write the policy that training would have started from; for one process."""
    _copy(job, full_files(start_folder(job)))


def _copy(job: TrainJob, names: list[str]) -> None:
    for name in names:
        with atomic_path(job.output / name) as temporary:
            shutil.copyfile(start_folder(job) / name, temporary)


def _load(job: TrainJob, folder: Path, attention: str | None) -> Any:
    with importing():
        import torch
        from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if use_bfloat16(job.dtype) else torch.float32
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation=attention, local_files_only=True
    )
