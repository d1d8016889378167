"""The question that `dynalign run` asks on a terminal when its run waits for an approval."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from dynalign_operator.api.approvals import AwaitedApproval, Decision, build_request
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.cli.sample import read_sample
from dynalign_operator.clusters.local.approving import user_name, write_decision
from dynalign_operator.clusters.local.workdir import Workdir
from dynalign_operator.planning.approvals import describe_subject

if TYPE_CHECKING:
    from rich.console import Console

_CHOICES: Final = {"y": Decision.APPROVED, "yes": Decision.APPROVED, "n": Decision.REJECTED, "no": Decision.REJECTED}


def can_ask(console: "Console") -> bool:
    """Whether a person can see the question and answer it."""
    return console.is_terminal and sys.stdin.isatty()


def ask_for_approval(console: "Console", run: AlignmentRun, folder: Path) -> bool:
    """Show a sample, ask, and store the answer; False where the person puts the decision off."""
    from dynalign_operator.cli.description import figures

    awaited = run.status.awaited_approval
    if awaited is None:
        return False
    sample = read_sample(folder, awaited)
    console.print()
    if sample is not None:
        console.print(sample)
    console.print()
    console.print(figures(run.status))
    console.print()
    decision = _ask(awaited)
    if decision is None:
        return False
    write_decision(Workdir(folder.absolute()), build_request(awaited, user_name(), decision).to_text())
    return True


def _ask(awaited: AwaitedApproval) -> Decision | None:
    question = f"Go on with {describe_subject(awaited)}? [y: yes, n: end the run, Enter: decide later]"
    try:
        return _CHOICES.get(typer.prompt(question, default="", show_default=False).strip().lower())
    except typer.Abort:
        return None
