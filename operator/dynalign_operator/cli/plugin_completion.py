"""`kubectl_complete-dynalign`: what kubectl asks when a person presses Tab after `kubectl dynalign ...`.

kubectl passes the words that follow, the unfinished one last, and expects a candidate on each line, a tab before its
description, and the directive of its completion library at the end.
"""

import os
import shlex
import sys
from typing import Final

from dynalign_operator.cli.run_choice import PROGRAM
from dynalign_operator.cli.terminal import say

_NO_FILES: Final = ":4"
"""Directive: do not complete file names where there is no candidate."""
_FILES: Final = ":0"
_TAKE_FILES: Final = frozenset({"validate", "render", "run"})
"""Commands whose argument is a file of this machine."""


def main() -> None:
    """Print the candidates. The format of fish, which typer writes, is the one that kubectl reads."""
    from dynalign_operator.cli.main import app

    words = sys.argv[1:]
    *before, unfinished = words or [""]
    line = shlex.join([PROGRAM, *before])
    os.environ |= {
        f"_{PROGRAM.upper()}_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": f"{line} {shlex.quote(unfinished) if unfinished else ''}",
    }
    try:
        app(prog_name=PROGRAM)
    finally:
        say(_FILES if before[:1] and before[0] in _TAKE_FILES else _NO_FILES)
