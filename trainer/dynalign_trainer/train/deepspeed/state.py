"""DeepSpeed's checkpoints without pickle, and for any number of ranks.

`CheckpointEngine` is its own extension point for how states are stored. DeepSpeed refuses the optimiser's state of
another number of ranks; what is handed to it here has been cut for those that there are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from deepspeed.checkpoint.constants import (
    BASE_OPTIMIZER_STATE,
    FP32_FLAT_GROUPS,
    LOSS_SCALER,
    OPTIMIZER_STATE_DICT,
    PARAM_SHAPES,
    PARAM_SLICE_MAPPINGS,
    SINGLE_PARTITION_OF_FP32_GROUPS,
)
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler

from dynalign_trainer.train.deepspeed.recut import Block, plan_share, read_share
from dynalign_trainer.train.deepspeed.state_names import is_optimizer_file, optimizer_files
from dynalign_trainer.train.state_files import StoredTensor, open_state, read_state, write_state

_RANKS: Final = "dp_world_size"
_GLOBAL: Final = (LOSS_SCALER, "dynamic_loss_scale", "overflow", "clip_grad")
"""State of the optimiser that all ranks have alike."""


class PlainCheckpointEngine(CheckpointEngine):  # type: ignore[misc] # DeepSpeed has no types
    """Stores states of a DeepSpeed engine as tensors and JSON (`state_files`); reads nothing else."""

    def __init__(self, engine: Any) -> None:
        super().__init__()
        self._engine = engine
        self._written: list[Path] = []
        self._shapes: list[dict[str, Any]] = []

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
        """Read one rank's file, or what it would be had so many ranks written it as there are now.

        Raises CorruptArtifactError when it is not one of ours.
        """
        file = Path(path)
        if is_optimizer_file(file):
            files = optimizer_files(file.parent)
            if len(files) != self._engine.dp_world_size:
                return {OPTIMIZER_STATE_DICT: _from_plain(self._recut([open_state(each) for each in files]))}
            return _from_plain(read_state(file))
        state = _from_plain(read_state(file))
        if PARAM_SHAPES in state:  # a model file, which DeepSpeed loads before the optimiser's
            self._shapes = state[PARAM_SHAPES] or []
            state[_RANKS] = self._engine.dp_world_size
        return state

    def commit(self, info: Any) -> bool:  # noqa: ARG002 - every file is written by then
        """Called after a checkpoint was written."""
        return True

    def preserves_storage_sharing(self) -> bool:
        """Tensors that share memory are written apart, so DeepSpeed need not copy them before."""
        return False

    def _recut(self, files: list[Any]) -> dict[str, Any]:
        """This rank's state of the optimiser from the files of all ranks that wrote it."""
        saved = [file[OPTIMIZER_STATE_DICT] for file in files]
        own: dict[str, Any] = self._engine.optimizer.state_dict()
        cut = _cut_whole_groups if SINGLE_PARTITION_OF_FP32_GROUPS in own else _cut_parameters
        found = cut(saved, own, self._shapes, self._engine)
        return own | {key: saved[0][key] for key in _GLOBAL if key in saved[0]} | found


def use_plain_checkpoints(engine: Any) -> None:
    """Have a DeepSpeed engine store its checkpoints without pickle; call it before the first is saved or loaded."""
    engine.checkpoint_engine = PlainCheckpointEngine(engine)


def take_written(engine: Any) -> list[Path]:
    """Files of checkpoints that this rank of a DeepSpeed engine has written since the last call."""
    found: list[Path] = engine.checkpoint_engine.take_written()
    return found


def _cut_whole_groups(saved: list[Any], own: Any, shapes: list[dict[str, Any]], engine: Any) -> dict[str, Any]:
    """ZeRO 1 and 2: each parameter group is flat, padded at its end, and cut into equal parts."""
    weights: list[Any] = []
    states: dict[int, dict[str, Any]] = {}
    for group, (names, parameters) in enumerate(zip(shapes, engine.basic_optimizer.param_groups, strict=True)):
        moments = [rank[BASE_OPTIMIZER_STATE]["state"][group] for rank in saved]
        before = next(value.numel for value in moments[0].values() if _is_flat(value))
        block = Block(sum(shape.numel() for shape in names.values()), before, parameters["params"][0].numel())
        pieces = list(plan_share([block], engine.global_rank))
        weights.append(read_share(pieces, [[rank[SINGLE_PARTITION_OF_FP32_GROUPS][group]] for rank in saved]))
        states[group] = {
            key: read_share(pieces, [[rank[key]] for rank in moments]) if _is_flat(value) else _whole(value)
            for key, value in moments[0].items()
        }
    base = {"state": states, "param_groups": _groups(saved[0][BASE_OPTIMIZER_STATE], own[BASE_OPTIMIZER_STATE])}
    return {SINGLE_PARTITION_OF_FP32_GROUPS: weights, BASE_OPTIMIZER_STATE: base}


def _cut_parameters(saved: list[Any], own: Any, shapes: list[dict[str, Any]], engine: Any) -> dict[str, Any]:
    """ZeRO 3: every parameter is padded and cut into equal parts; a rank's parts are flat in groups of a certain size,
    of which another number of ranks makes other groups.
    """
    numels = [shape.numel() for group in shapes for shape in group.values()]
    blocks = [Block(numel, -(-numel // len(saved)), -(-numel // engine.dp_world_size)) for numel in numels]
    pieces, sizes = list(plan_share(blocks, engine.global_rank)), [len(flat) for flat in own[FP32_FLAT_GROUPS]]
    moments = [list(rank[OPTIMIZER_STATE_DICT]["state"].values()) for rank in saved]
    states: list[dict[str, Any]] = [{} for _ in sizes]
    for key, value in moments[0][0].items():
        if _is_flat(value):
            found = read_share(pieces, [[group[key] for group in rank] for rank in moments]).split(sizes)
        else:
            found = [_whole(value).clone() for _ in sizes]
        for state, part in zip(states, found, strict=True):
            state[key] = part
    base = {
        "state": dict(enumerate(states)),
        "param_groups": _groups(saved[0][OPTIMIZER_STATE_DICT], own[OPTIMIZER_STATE_DICT]),
    }
    weights = read_share(pieces, [rank[FP32_FLAT_GROUPS] for rank in saved]).split(sizes)
    return {FP32_FLAT_GROUPS: list(weights), OPTIMIZER_STATE_DICT: base}


def _groups(saved: Any, own: Any) -> list[dict[str, Any]]:
    """The optimiser's groups as they were saved, with the tensors that they have now."""
    pairs = zip(saved["param_groups"], own["param_groups"], strict=True)
    return [_whole(before) | {"params": now["params"]} for before, now in pairs]


def _is_flat(value: Any) -> bool:
    """Whether a value of the optimiser's state is spread over the ranks; the number of steps is not."""
    return isinstance(value, StoredTensor) and value.is_flat


def _whole(value: Any) -> Any:
    """A value with its tensors in memory."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return value.whole() if isinstance(value, StoredTensor) else value


def _to_plain(value: Any) -> Any:
    """Replace the one object of DeepSpeed's that its loading needs, and leave out those that it does not need.

    Where the slices of parameters lie follows from their shapes.
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
