"""What lasts as long as a process that ends at once, and ends with its last user in any other."""

import subprocess
import sys

PROGRAM = """
import weakref
from dynalign_trainer.runtime.ending import end_at_once, keep

class Engine:
    pass

def lasts():
    engine = Engine()
    keep(engine)
    return weakref.ref(engine)

before = lasts()
end_at_once()
after = lasts()
print(before() is None, after() is None)
"""


def test_an_engine_is_taken_apart_unless_its_process_ends_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "True False\n"), done.stderr
