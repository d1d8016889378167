"""Reads offline runs by wandb's own record types: a log of LevelDB's form behind a header of seven bytes."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_HEADER = struct.Struct("<4sHB")
_CHUNK = struct.Struct("<IHB")
_BLOCK = 32_768
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """A run as `wandb sync` would send it."""

    id: str = ""
    name: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    """None where the file breaks off before the run's end."""


def read_offline_runs(folder: Path) -> list[OfflineRun]:
    """Every run of a folder, by id."""
    return sorted(map(_read, folder.glob("offline-run-*/run-*.wandb")), key=lambda run: run.id)


def _read(file: Path) -> OfflineRun:
    found = OfflineRun()
    for data in _records(file.read_bytes()):
        record: Any = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                run = record.run
                found.id, found.name, found.project = run.run_id, run.display_name, run.project
                found.group, found.job_type = run.run_group, run.job_type
                found.config |= _values(run.config.update)
            case "history":
                found.history.append(_values(record.history.item))
            case "summary":
                found.summary |= _values(record.summary.update)
            case "exit":
                found.exit_code = record.exit.exit_code
    return found


def _values(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[bytes]:
    assert _HEADER.unpack_from(data)[0] == b":W&B"
    at, whole = _HEADER.size, b""
    while at + _CHUNK.size <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _CHUNK.size:
            at += left
            continue
        _, length, kind = _CHUNK.unpack_from(data, at)
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
            at += left  # the padding of a block
            continue
        at += _CHUNK.size
        whole += data[at : at + length]
        at += length
        if kind in (_FULL, _LAST):
            yield whole
            whole = b""
