"""The command line of every generator: write the generated file, or compare it with the one that is there."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path


def run_generator(what: str, text: str, argv: Sequence[str] | None) -> int:
    """`--write FILE` writes `text`; `--check FILE` prints how the file differs and returns 1."""
    parser = argparse.ArgumentParser(description=f"{what}, generated from the models.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", type=Path, metavar="FILE")
    action.add_argument("--check", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)
    if arguments.write is not None:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        arguments.write.write_text(text, encoding="utf-8")
        return 0
    path: Path = arguments.check
    present = path.read_text(encoding="utf-8") if path.exists() else ""
    diff = difflib.unified_diff(
        present.splitlines(keepends=True), text.splitlines(keepends=True), str(path), "generated from the models"
    )
    lines = list(diff)
    sys.stdout.writelines(lines)
    if lines:
        sys.stderr.write(f"{path} is not what the models say; run `make generate` and commit the result.\n")
    return 1 if lines else 0
