"""Training state survives a checkpoint bit for bit, and nothing that lies on a volume runs as code."""

import ast
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import dynalign_trainer
from dynalign_contract.errors import CorruptArtifactError
from dynalign_trainer.train.state_files import check_state_file, open_state, read_state, write_state
from support.planted import plant_pickle, plant_torch_file

SHARED = torch.arange(12.0)
STATE = {
    "module": OrderedDict(a=torch.randn(3, 4, dtype=torch.bfloat16), b=torch.nn.Parameter(torch.zeros(0))),
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": SHARED[2:5]}}, "param_groups": [{"lr": 1e-5}]},
    "shapes": [torch.Size([3, 4]), (1, "x"), {2, 1}],
    "views": [SHARED, SHARED.view(3, 4), SHARED.view(3, 4).t(), SHARED],
    "dtype": torch.bfloat16,
    "plain": [None, True, 2**60, 0.1, float("inf"), "Ü"],
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


def test_a_tensor_of_two_names_stays_one(tmp_path: Path) -> None:
    """A head that shares the embedding's weight is stored, and comes back, once."""
    weight = torch.nn.Parameter(torch.randn(4, 3))
    write_state({"embedding": weight, "head": weight.data, "other": torch.randn(4, 3)}, tmp_path / "x_states.pt")
    found = read_state(tmp_path / "x_states.pt")
    assert found["embedding"].data_ptr() == found["head"].data_ptr() != found["other"].data_ptr()
    assert torch.equal(found["head"], weight.data)


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    write_state(STATE, tmp_path / "x_states.pt")
    check_state_file(tmp_path / "x_states.pt")
    assert same(STATE, read_state(tmp_path / "x_states.pt"))


def test_deepspeeds_own_objects_come_back_and_what_it_does_not_load_is_left_out(tmp_path: Path) -> None:
    from dynalign_trainer.train.deepspeed import cpu as cpu_deepspeed

    cpu_deepspeed.use_gloo()
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.utils.tensor_fragment import fragment_address

    from dynalign_trainer.train.deepspeed.state import PlainCheckpointEngine

    state = {"optimizer_state_dict": {"loss_scaler": LossScaler(4.0), "overflow": False, "clip_grad": 0.2}}
    slices = {"param_slice_mappings": [{"w": fragment_address(3, 0)}]}
    engine, path = PlainCheckpointEngine(None), str(tmp_path / "x_states.pt")
    engine.save({"optimizer_state_dict": state["optimizer_state_dict"] | slices}, path)
    found = engine.load(path)["optimizer_state_dict"]
    assert (found.pop("loss_scaler").cur_scale, found) == (4.0, {"overflow": False, "clip_grad": 0.2})


def test_an_object_that_is_no_data_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="pathlib"):
        write_state({"a": [tmp_path]}, tmp_path / "x_states.pt")


def plant_safetensors(path: Path, mark: Path) -> None:
    """The right container, and a tree that asks for more than data."""
    tree = '{"dtype": "load"}'
    save_file({"0": torch.zeros(1)}, path, metadata={"dynalign.state": "1", "tree": tree})


def plant_other_tensors(path: Path, mark: Path) -> None:
    save_file({"0": torch.zeros(1)}, path)


def plant_nothing(path: Path, mark: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "plant", [plant_pickle, plant_torch_file, plant_safetensors, plant_other_tensors, plant_nothing]
)
def test_other_files_are_refused_and_none_of_their_code_runs(
    tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    path, mark = tmp_path / "x_states.pt", tmp_path / "mark"
    plant(path, mark)
    for read in (read_state, open_state):
        with pytest.raises(CorruptArtifactError, match=r"x_states\.pt is no training state that dynalign wrote"):
            read(path)
    assert not mark.exists()


def test_the_planted_files_would_run_code(tmp_path: Path) -> None:
    plant_pickle(tmp_path / "a", tmp_path / "mark-a")
    pickle.loads((tmp_path / "a").read_bytes())  # noqa: S301 - what this file is about
    plant_torch_file(tmp_path / "b", tmp_path / "mark-b")
    torch.load(tmp_path / "b", weights_only=False)
    assert (tmp_path / "mark-a").exists()
    assert (tmp_path / "mark-b").exists()


FORBIDDEN = {
    "torch.load",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "yaml.load",
    "marshal.loads",
    "joblib.load",
}


def calls_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    switches = {
        f"{keyword.arg}=True"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if isinstance(keyword.value, ast.Constant) and keyword.value.value is True
    }
    return names | switches


def test_no_stage_unpickles_evaluates_or_trusts_what_it_reads() -> None:
    forbidden = FORBIDDEN | {"eval", "exec", "allow_pickle=True", "trust_remote_code=True"}
    files = sorted(Path(dynalign_trainer.__path__[0]).rglob("*.py"))
    assert files
    assert {path.name: found for path in files if (found := calls_of(path) & forbidden)} == {}
