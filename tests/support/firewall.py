"""A firewall between two pods of a cluster on this machine: it drops packets without a word."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Pod = dict[str, Any]


@contextmanager
def dropped_packets(sender: Pod, receiver: Pod) -> Iterator[None]:
    """Drop what one pod sends to the other, in the receiver's network namespace; skips where that cannot be entered."""
    process = _process_of(receiver["metadata"]["uid"])
    if process is None or os.geteuid() != 0:
        pytest.skip("the pods' network namespaces can be entered by root, and on the machine of the node only")
    rule = ("INPUT", "-s", sender["status"]["podIP"], "-j", "DROP")
    _iptables(process, "-I", *rule)
    try:
        yield
    finally:
        _iptables(process, "-D", *rule)


def _process_of(uid: str) -> int | None:
    """A process of the pod; None when this machine has none of them."""
    names = (uid, uid.replace("-", "_"))  # systemd's slices do not take a dash
    for place in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            groups = place.read_text()
        except OSError:
            continue  # it has ended
        if any(name in groups for name in names):
            return int(place.parent.name)
    return None


def _iptables(process: int, *arguments: str) -> None:
    command = ["nsenter", "--net", "--target", str(process), "iptables", "-w", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
