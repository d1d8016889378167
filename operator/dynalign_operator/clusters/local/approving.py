"""A person's decision about a run of this machine: a file beside the run, where a cluster has an annotation.

`run.json` belongs to the process that works on the run; this file may be written while one does.
"""

import getpass
import os
from typing import Final

from dynalign_contract.files import write_bytes
from dynalign_operator.clusters.local.workdir import Workdir, explained

_LONGEST: Final = 65_536
"""Bytes that are read."""


def read_decision(workdir: Workdir) -> str | None:
    """The text of the latest decision; None where there is none. Raises OSError."""
    try:
        with workdir.approval.open("rb") as file:
            return file.read(_LONGEST).decode(errors="replace")
    except FileNotFoundError:
        return None


def write_decision(workdir: Workdir, text: str) -> None:
    """Store a decision in the place of the one before. Raises ClusterError."""
    with explained(workdir.root):
        write_bytes(workdir.approval, text.encode())


def user_name() -> str:
    """Name of the user of this process; on this machine nothing vouches for it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid-{os.getuid()}"
