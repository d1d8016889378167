"""What a conversion needs, held against what is there."""

from pathlib import Path

import pytest

from dynalign_contract.errors import MemoryFullError, VolumeFullError
from dynalign_trainer.preflight.capacity import Needs, check_capacity, estimate_needs
from dynalign_trainer.preflight.dequantised import Method
from support.tiny_models import GPT_OSS

EXBIBYTE = 1 << 60


def test_little_is_always_there(tmp_path: Path) -> None:
    check_capacity(Needs(source=10, copy=40, memory=1000), tmp_path / "new")


def test_a_volume_that_is_too_small_is_told_with_both_sizes(tmp_path: Path) -> None:
    with pytest.raises(VolumeFullError, match=r"1073741824.0 GiB for the quantised weights.*2147483648.0 GiB"):
        check_capacity(Needs(source=EXBIBYTE, copy=2 * EXBIBYTE, memory=0), tmp_path)


def test_what_an_earlier_attempt_has_brought_counts(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(bytes(1 << 20))
    with pytest.raises(VolumeFullError, match=r"and 1073741823.0 GiB are needed"):
        check_capacity(Needs(source=EXBIBYTE - (1 << 30) + (1 << 20), copy=0, memory=0), tmp_path)


def test_memory_that_is_too_small_is_told_with_the_limit_to_write(tmp_path: Path) -> None:
    with pytest.raises(MemoryFullError, match=r"spec.stages.fetch.resources.limits to 1073741824Gi"):
        check_capacity(Needs(source=0, copy=0, memory=EXBIBYTE), tmp_path)


def test_needs_grow_with_the_largest_tensor_and_not_with_the_model() -> None:
    deeper = GPT_OSS.changed(num_hidden_layers=16, layer_types=["full_attention"] * 16)
    small, deep = (estimate_needs(Method.MXFP4, model.build(device="meta"), 0) for model in (GPT_OSS, deeper))
    assert deep.copy > 5 * small.copy
    assert deep.memory == small.memory
