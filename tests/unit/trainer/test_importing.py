"""Imports of large libraries: the garbage collector keeps out of them, and some of what they would import is left out."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import gc
from dynalign_trainer.runtime.importing import importing, leave_objects_alone

def collections():
    return sum(generation["collections"] for generation in gc.get_stats())

gc.set_threshold(700, 10, 10)
before = collections()
with importing("costly"):
    with importing():
        import large
    assert not gc.isenabled(), "the outer block goes on"
    import large
assert collections() == before, "nothing was collected meanwhile"
assert gc.isenabled()
assert not large.HAS_COSTLY
import costly
assert gc.get_freeze_count() >= large.OBJECTS, "what was imported is left alone from here on"

cycle = []
cycle.append(cycle)
frozen = gc.get_freeze_count()
with importing("costly"):
    from costly import NAME
assert NAME == "imported before, so it stays"
assert gc.get_freeze_count() == frozen, "a model that a later import comes after can be freed"
del cycle
assert gc.collect() >= 1
leave_objects_alone()
print("ended")
"""
LARGE = """
OBJECTS = 50_000
KEPT = [[] for _ in range(OBJECTS)]
try:
    import costly
    HAS_COSTLY = True
except ImportError:
    HAS_COSTLY = False
"""


@pytest.mark.slow
def test_nothing_is_collected_during_imports_and_what_they_make_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "large.py").write_text(LARGE)
    (tmp_path / "costly.py").write_text('NAME = "imported before, so it stays"\n')
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run([sys.executable, str(tmp_path / "program.py")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
