"""DeepSpeed's checkpoints without pickle: its own extension point for how states are stored (`CheckpointEngine`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepspeed.checkpoint.constants import LOSS_SCALER, PARAM_SLICE_MAPPINGS
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler

from dynalign_trainer.train.state_files import read_state, write_state


class PlainCheckpointEngine(CheckpointEngine):  # type: ignore[misc] # DeepSpeed has no types
    """Stores states as tensors and JSON (`state_files`); reads nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[Path] = []

    def take_written(self) -> list[Path]:
        """The files that this rank has written since the last call."""
        written, self._written = self._written, []
        return written

    def create(self, info: Any) -> None:
        """Called before a checkpoint is written."""

    def save(self, state_dict: Any, path: str) -> None:
        """Write one rank's file."""
        write_state(_to_plain(state_dict), Path(path))
        self._written.append(Path(path))

    def load(self, path: str, map_location: Any = None) -> Any:  # noqa: ARG002 - DeepSpeed moves what it needs
        """Read one rank's file; raises CorruptArtifactError when it is not one of ours."""
        return _from_plain(read_state(Path(path)))

    def commit(self, info: Any) -> bool:  # noqa: ARG002 - every file is written by then
        """Called after a checkpoint was written."""
        return True

    def preserves_storage_sharing(self) -> bool:
        """Tensors that share memory are written apart, so DeepSpeed need not copy them before."""
        return False


def use_plain_checkpoints(engine: Any) -> None:
    """Have a DeepSpeed engine store its checkpoints without pickle; call it before the first is saved or loaded."""
    engine.checkpoint_engine = PlainCheckpointEngine()


def take_written(engine: Any) -> list[Path]:
    """Files of checkpoints that this rank of a DeepSpeed engine has written since the last call."""
    found: list[Path] = engine.checkpoint_engine.take_written()
    return found


def _to_plain(value: Any) -> Any:
    """Replace the one object of DeepSpeed's that its loading needs, and leave out those that it does not need.

    The slices of parameters serve to change the number of processes, which starts anew here.
    """
    if isinstance(value, Mapping):
        kept = {key: item for key, item in value.items() if key != PARAM_SLICE_MAPPINGS}
        return {key: _scale(item) if key == LOSS_SCALER else _to_plain(item) for key, item in kept.items()}
    return value


def _scale(scaler: Any) -> float:
    if type(scaler) is not LossScaler:
        raise TypeError(f"{type(scaler).__name__} scales losses by what it has seen; only a fixed scale can be stored")
    return float(scaler.cur_scale)


def _from_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: LossScaler(item) if k == LOSS_SCALER else _from_plain(item) for k, item in value.items()}
    return value
