"""Problems of a run file on stderr: one paragraph each, led by `file:line` as compilers do."""

from pathlib import Path

from dynalign_operator.cli.terminal import say
from dynalign_operator.runfile.run_file import RunFile, RunFileError


def report_problems(path: Path, error: RunFileError) -> int:
    """Print every problem; returns the exit code."""
    for problem in error.problems:
        place = str(path) if problem.line is None else f"{path}:{problem.line}"
        say(f"{place}: {problem.text}", err=True)
    return int(error.exit_code)


def report_notes(path: Path, run_file: RunFile) -> RunFile:
    """Print what was left out of the file; returns the run file."""
    for note in run_file.notes:
        say(f"{path}: note: {note}.", err=True)
    return run_file
