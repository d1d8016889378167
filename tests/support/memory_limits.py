"""Control groups as files of a test's own."""

from pathlib import Path

from dynalign_trainer.runtime.memory import ControlGroup


def control_group(folder: Path) -> ControlGroup:
    """One of the second version whose files lie in a folder; a missing file is one that this machine lacks."""
    names = ("memory.max", "memory.current", "memory.stat")
    limit, usage, details = (folder / name for name in names)
    return ControlGroup(limit, usage, details, "inactive_file")
