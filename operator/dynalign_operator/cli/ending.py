"""What `dynalign run` and `dynalign status` say of a run: what it reached, what changed, and where to go from there."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from dynalign_contract.layout import RunLayout
from dynalign_operator.api.approvals import AwaitedApproval
from dynalign_operator.api.status import Phase
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.cli.before_after import before_after, read_changes
from dynalign_operator.cli.drive import stalled_message
from dynalign_operator.cli.logs import latest_log
from dynalign_operator.cli.summary import judge_warning, judged_iteration, legend, summary_table, verdict
from dynalign_operator.cli.tables import describe_best, describe_goodput, wide_tables
from dynalign_operator.cli.terminal import say, styled
from dynalign_operator.planning.approvals import describe_subject
from dynalign_operator.planning.budget import is_held_by_budget

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Invocation:
    """How `dynalign run` was called."""

    file: Path
    folder: Path
    """Working folder."""
    settings: Sequence[str] = ()
    """Values of `--set`."""

    @property
    def command(self) -> str:
        """The command that goes on with the run."""
        words = ["run", str(self.file), *(word for setting in self.settings for word in ("--set", setting))]
        if self.folder.parent != Path("runs"):
            words += ["--workdir", str(self.folder)]
        return f"{_program()} {shlex.join(words)}"


def print_summary(console: "Console", run: AlignmentRun, *, wide: bool) -> None:
    """The iterations in a table of few columns, or every number; nothing before the first iteration."""
    status = run.status
    if not status.iterations:
        return
    console.print(wide_tables(status) if wide else summary_table(status))
    if not wide:
        console.print(styled(legend(status), style="dim"))
    if goodput := describe_goodput(status.goodput):
        console.print(styled(goodput, style="dim"))
    if warning := judge_warning(status):
        console.print(styled(warning, style="yellow"))


def print_ending(console: "Console", run: AlignmentRun, invocation: Invocation, *, wide: bool) -> None:
    """The last lines of `dynalign run`; for a run that cannot go on, why, and where its log lies."""
    status, name = run.status, run.metadata.name
    print_summary(console, run, wide=wide)
    if status.phase is Phase.SUCCEEDED:
        _print_success(console, run, invocation, wide=wide)
    elif status.phase is Phase.SUSPENDED:
        say(f"{name} is suspended (spec.suspend); set it to false and run again.")
    elif status.awaited_approval is not None:
        _print_wait_for_approval(invocation, status.awaited_approval)
    elif is_held_by_budget(status):
        say(f"{name} is held by its budget: {stalled_message(status)}")
        say(f"  go on:  {invocation.command}")
    else:
        log = latest_log(invocation.folder)
        say(f"{name} failed: {stalled_message(status) or status.progress}", err=True)
        if log is not None:
            say(f"The log is {log}", err=True)


def _print_wait_for_approval(invocation: Invocation, awaited: AwaitedApproval) -> None:
    folder = shlex.quote(str(invocation.folder))
    say(f"The run waits for a person to approve {describe_subject(awaited)}.")
    say(f"  look at it:  {_program()} describe {folder}")
    say(f"  approve it:  {_program()} approve {folder}   (or --reject REASON)")
    say(f"  go on:       {invocation.command}")


def _print_success(console: "Console", run: AlignmentRun, invocation: Invocation, *, wide: bool) -> None:
    entry = judged_iteration(run.status)
    changes = None if entry is None else read_changes(invocation.folder, entry.index)
    if changes is not None:
        console.print()
        console.print(before_after(changes))
    console.print()
    console.print(styled(verdict(run), style="bold"))
    if wide:
        console.print(f"{run.metadata.name} is complete{describe_best(run.status.best)}.")
    console.print()
    console.print(_places(run, invocation))


def _places(run: AlignmentRun, invocation: Invocation) -> Table:
    """Where model and report are, and the commands that show more or go on."""
    file, folder, layout = invocation.file, invocation.folder, RunLayout(invocation.folder)
    lines = {"model": f"{layout.export} (a Hugging Face folder; load it with transformers or vLLM)"}
    if run.status.published:
        lines["published"] = "\n".join(place.uri for place in run.status.published)
    is_reported = layout.report.is_file()
    lines["report"] = f"{layout.report} (open it in a browser)" if is_reported else f"{_program()} report {folder}"
    lines["numbers"] = f"{_program()} status {folder} --wide"
    lines["go on"] = f"raise spec.iterations (now {run.spec.iterations}) in {file}, then: {invocation.command}"
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in lines.items():
        grid.add_row(styled(label, style="dim"), styled(text))
    return grid


def _program() -> str:
    """The program as it was typed, such as `.venv/bin/dynalign`; `dynalign` where that is found by its name."""
    typed = sys.argv[0]
    is_found = Path(typed).name != "dynalign" or shutil.which("dynalign") is not None
    return "dynalign" if is_found else typed
