"""Objects that last as long as a process which ends at once, without a look at what it has made."""

import threading
from typing import Any, Final

_AT_ONCE: Final = threading.Event()
_KEPT: Final[list[Any]] = []


def end_at_once() -> None:
    """Say that this process will end by `os._exit`, so that nothing in it needs to be taken apart before."""
    _AT_ONCE.set()


def keep(lasting: Any) -> None:
    """Keep an object to the end of a process that ends at once; elsewhere it ends with its last user.

    vLLM looks for garbage among a million imported objects when an engine ends: more than a second.
    """
    if _AT_ONCE.is_set():
        _KEPT.append(lasting)
