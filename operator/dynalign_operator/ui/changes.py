"""What a person may change in a run from the page, and the fields that a confirmed change sets. Pure."""

from typing import Any, Final

from dynalign_operator.api.status import Phase
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.run_source import RunSnapshot
from dynalign_operator.ui.models import ActionsView, Change, ChangeRequest

_MAX_ITERATIONS: Final = 1000
_LOCAL: Final = (
    "A run of this machine is stopped by Ctrl-C in the terminal of its `dynalign run FILE`, and goes on when that is "
    "given again; more iterations are written into the file first."
)


class ChangeRefusedError(ClusterError):
    """The change makes no sense for the run as it is now; the message says why."""


def build_actions(snapshot: RunSnapshot) -> ActionsView:
    """What the page offers for a run. What the user's rights do not cover is said when it is tried."""
    run, phase = snapshot.run, snapshot.run.status.phase
    if not snapshot.place.is_cluster:
        return ActionsView(generation=run.metadata.generation, iterations=run.spec.iterations, note=_LOCAL)
    return ActionsView(
        generation=run.metadata.generation,
        can_suspend=not run.spec.suspend and phase not in (Phase.SUCCEEDED, Phase.FAILED),
        can_resume=run.spec.suspend,
        iterations=run.spec.iterations,
        can_add_iterations=run.spec.iterations < _MAX_ITERATIONS,
    )


def plan_change(run: AlignmentRun, wish: ChangeRequest) -> dict[str, Any]:
    """The fields of the specification that a change sets. Raises ChangeRefusedError."""
    if wish.generation != run.metadata.generation:
        raise ChangeRefusedError(
            f"{run.metadata.name} has been changed since the page was drawn; nothing was done. Look at it again."
        )
    match wish.change:
        case Change.SUSPEND if run.spec.suspend:
            raise ChangeRefusedError(f"{run.metadata.name} is suspended already.")
        case Change.RESUME if not run.spec.suspend:
            raise ChangeRefusedError(f"{run.metadata.name} is not suspended.")
        case Change.SUSPEND | Change.RESUME:
            return {"suspend": wish.change is Change.SUSPEND}
        case Change.ITERATIONS:
            if wish.iterations is None or wish.iterations <= run.spec.iterations:
                raise ChangeRefusedError(
                    f"{run.metadata.name} has {run.spec.iterations} iterations; give a larger number, for the run may "
                    "have done them."
                )
            return {"iterations": wish.iterations}


def describe_change(run: AlignmentRun, fields: dict[str, Any]) -> str:
    """What has been done, as a sentence."""
    name = run.metadata.name
    if "iterations" in fields:
        return f"{name} now has {fields['iterations']} iterations."
    if fields["suspend"]:
        return f"{name} is being suspended: its Jobs end, and finished work is kept."
    return f"{name} goes on."
