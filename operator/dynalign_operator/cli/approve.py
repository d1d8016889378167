"""`dynalign approve`: lets a run that waits for a person go on, or ends it."""

from typing import TYPE_CHECKING, Annotated

import typer

from dynalign_contract.exit_codes import ExitCode
from dynalign_operator.cli.run_choice import (
    Context,
    Kubeconfig,
    Namespace,
    RunArgument,
    RunChoice,
    open_run,
    program_name,
    run_command,
)
from dynalign_operator.cli.terminal import say

if TYPE_CHECKING:
    from dynalign_operator.clusters.run_source import RunSnapshot


def approve(
    run: RunArgument = None,
    *,
    reject: Annotated[
        str | None,
        typer.Option("--reject", metavar="REASON", help="Refuse, and end the run as failed.", show_default=False),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Approve what a run waits with (spec.policy.approval), so that it goes on; or refuse it.

    `dynalign describe` shows what is approved. The decision names the gate, the iteration and the artifact, and holds
    for these alone; your name and the time are kept in the run's status. Exit code 11: the run waits for no approval.
    """

    async def work() -> int:
        from dynalign_operator.api.approvals import Decision
        from dynalign_operator.cli.decided import describe_sent

        decision = Decision.APPROVED if reject is None else Decision.REJECTED
        async with open_run(RunChoice(run, namespace, context, kubeconfig)) as (source, name):
            snapshot = await source.get(name)
            awaited = snapshot.run.status.awaited_approval
            if awaited is None:
                say(_nothing_to_approve(snapshot), err=True)
                return int(ExitCode.BAD_INPUT)
            by = await source.decide(snapshot, decision, reject or "")
        say(describe_sent(snapshot, awaited, decision, by))
        return 0

    run_command(work)


def _nothing_to_approve(snapshot: "RunSnapshot") -> str:
    run, status = snapshot.run, snapshot.run.status
    gates = ", ".join(run.spec.policy.approval)
    has = f"it waits {gates}" if gates else "spec.policy.approval names no gate"
    return (
        f"{run.metadata.name} waits for no approval now ({has}; phase {status.phase}). "
        f"`{program_name()} describe {snapshot.place.arguments}` says what it does."
    )
