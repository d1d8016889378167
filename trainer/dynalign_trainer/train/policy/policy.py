"""The policy in training: an adapter beside frozen weights, or all weights (`training.method`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from dynalign_contract.errors import BadConfigError
from dynalign_contract.settings import KlReference, TrainingMethod, TrainingSettings
from dynalign_trainer.models.merging import is_adapter
from dynalign_trainer.models.plain_adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from dynalign_trainer.runtime.machine import use_bfloat16
from dynalign_trainer.train.job import TrainJob
from dynalign_trainer.train.policy.fp32_weights import set_fp32
from dynalign_trainer.train.policy.full import (
    FullWriter,
    copy_full,
    full_files,
    load_base,
    load_full,
    parameters_of,
    starting_tensors,
)
from dynalign_trainer.train.policy.lora import (
    AdapterWriter,
    adapter_tensors,
    check_adapter,
    copy_adapter,
    load_adapter_policy,
)


class Writer(Protocol):
    """Knows what the policy was before training."""

    def write(self) -> float:
        """Write what it has become, on rank 0, and return its Euclidean distance from then; a collective call."""
        ...


def check_start(folder: Path, training: TrainingSettings) -> None:
    """Make sure that training can continue from a policy.

    Raises BadInputError when it cannot be read, BadConfigError when `training.method` or `training.lora` has changed.
    """
    was_lora = is_adapter(folder)
    if was_lora != (training.method is TrainingMethod.LORA):
        before = TrainingMethod.LORA if was_lora else TrainingMethod.FULL
        raise BadConfigError(
            f"spec.training.method is {training.method} but the policy that training continues from was made with "
            f"{before}: a run keeps its method. Set it back, or start a new run."
        )
    if was_lora:
        check_adapter(folder, training.adapter)


def policy_files(folder: Path, method: TrainingMethod) -> list[str]:
    """Names of a policy's files."""
    return [ADAPTER_WEIGHTS, ADAPTER_CONFIG] if method is TrainingMethod.LORA else full_files(folder)


def load_policy(job: TrainJob, attention: str | None = None, linear: Any = None) -> Any:
    """The job's policy, ready to be trained: a PEFT model, or the model itself.

    `attention` is an implementation that transformers knows, `linear` a class of PEFT's layers that takes the place of
    its own for linear layers with an adapter. Raises BadConfigError when it cannot be trained so.
    """
    if job.training.method is TrainingMethod.LORA:
        return load_adapter_policy(job, attention, linear)
    return load_full(job, attention)


def causal_lm(policy: Any) -> Any:
    """The transformers model within a policy."""
    return policy.get_base_model() if hasattr(policy, "get_base_model") else policy


def restore_fp32(job: TrainJob, policy: Any) -> None:
    """Set the float32 weights that DeepSpeed rounded at its start; a collective call, only when training begins."""
    if use_bfloat16(job.dtype):
        tensors = adapter_tensors(job) if job.training.method is TrainingMethod.LORA else starting_tensors(job)
        set_fp32(parameters_of(policy), tensors)


def needs_base(job: TrainJob) -> bool:
    """Whether the KL term needs the base model's log-probabilities, and these are not the starting policy's."""
    kl = job.training.kl
    return kl.coefficient > 0 and kl.reference is KlReference.BASE and job.start is not None


@contextmanager
def base_model(job: TrainJob, policy: Any, attention: str | None = None) -> Iterator[Any]:
    """The base model: None stands for the policy itself, whose adapter is switched off meanwhile."""
    if job.training.method is TrainingMethod.LORA:
        with policy.disable_adapter():
            yield None
    else:
        yield load_base(job, attention)


def begin_writer(job: TrainJob, policy: Any) -> Writer:
    """Remember the policy as it is before training; a collective call."""
    return AdapterWriter(job, policy) if job.training.method is TrainingMethod.LORA else FullWriter(job, policy)


def keep_policy(job: TrainJob) -> None:
    """Write the policy as it was, for an iteration in which nothing can be learned; for one process."""
    if job.training.method is TrainingMethod.LORA:
        copy_adapter(job)
    else:
        copy_full(job)
