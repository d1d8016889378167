"""Imports of large libraries, which Python's garbage collector would make half as long again."""

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_KEPT: Final = threading.Event()


@contextmanager
def importing(*left_out: str) -> Iterator[None]:
    """Import libraries without the garbage collector, which looks through all objects again and again meanwhile.

    vLLM and what it imports make a million objects that live as long as the process. After the first block of a
    process, which comes before there is any model, the collector leaves alone what is there. Blocks may be nested.

    Libraries that import `left_out` where they find them believe that these are not installed. What is imported already
    stays, and after the block they can be imported.
    """
    hidden = [name for name in left_out if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: what `import` takes for missing
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        if was_enabled:
            if not _KEPT.is_set():
                _KEPT.set()
                gc.freeze()
            gc.enable()


def leave_objects_alone() -> None:
    """Have Python end without a last look at all objects, which takes seconds; call it when all work is done."""
    gc.freeze()
