"""Files that are whole or absent, also where several pods write them at the same time."""

import os
import socket
from pathlib import Path

import pytest

from dynalign_contract.files import atomic_path, is_temporary, temporary_beside, write_bytes


def in_pod(patch: pytest.MonkeyPatch, name: str) -> None:
    """Be the first process of a pod."""
    patch.setattr(socket, "gethostname", lambda: name)
    patch.setattr(os, "getpid", lambda: 1)


def test_pods_that_write_the_same_file_at_the_same_time_leave_one_of_both_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their processes have the same number."""
    path = tmp_path / "manifest.json"
    in_pod(monkeypatch, "run-generate-0-x7k2p")
    with atomic_path(path) as mine:
        mine.write_bytes(b"a long beginning")
        in_pod(monkeypatch, "run-generate-1-9qwzm")
        write_bytes(path, b"theirs")
        assert path.read_bytes() == b"theirs"
        mine.write_bytes(b"mine")
    assert path.read_bytes() == b"mine"
    assert [found.name for found in tmp_path.iterdir()] == ["manifest.json"]


def test_a_pod_that_comes_back_writes_over_what_it_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_pod(monkeypatch, "run-train-0")
    left = temporary_beside(tmp_path / "x")
    left.write_text("half")
    assert is_temporary(left.name)
    write_bytes(tmp_path / "x", b"whole")
    assert [found.name for found in tmp_path.iterdir()] == ["x"]
