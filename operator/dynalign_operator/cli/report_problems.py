"""Problems of a run file on stderr: one paragraph each, led by `file:line` as compilers do."""

import sys
from pathlib import Path

from dynalign_operator.api.run_file import RunFileError


def report_problems(path: Path, error: RunFileError) -> int:
    """Print every problem; returns the exit code."""
    for problem in error.problems:
        place = str(path) if problem.line is None else f"{path}:{problem.line}"
        sys.stderr.write(f"{place}: {problem.text}\n")
    return int(error.exit_code)
