"""Runs as the commands of the terminal see them, from simulated ones."""

from collections.abc import Iterable
from datetime import timedelta

from rich.console import Console, RenderableType

from dynalign_operator.clusters.run_source import RunEvent, RunPlace, RunSnapshot
from dynalign_operator.planning.plan import Event, EventType
from support.builders import T0
from support.simulation import Simulation

IN_CLUSTER = RunPlace(
    title="namespace team, context prod",
    files="PersistentVolumeClaim r, folder /r",
    arguments="r -n team",
    is_cluster=True,
)
ON_THIS_MACHINE = RunPlace(title="runs/r", files="runs/r", arguments="runs/r", is_cluster=False)


def snapshot_of(
    simulation: Simulation, place: RunPlace = IN_CLUSTER, *, is_driven: bool = True, notes: tuple[str, ...] = ()
) -> RunSnapshot:
    """The run of a simulation as it is now."""
    return RunSnapshot(simulation.run, place, tuple(simulation.jobs.values()), is_driven, notes)


def seen(events: Iterable[Event]) -> tuple[RunEvent, ...]:
    """Events of the planner as they are read, a second apart."""
    return tuple(
        RunEvent(T0 + timedelta(seconds=number), event.type, event.reason, event.message)
        for number, event in enumerate(events)
    )


def refusal(job: str, message: str) -> RunEvent:
    """An event with which the Job controller says that the API server takes no pod."""
    return RunEvent(T0 + timedelta(hours=1), EventType.WARNING, "FailedCreate", message, job=job, count=7)


def without_volume(message: str) -> RunEvent:
    """An event with which a provisioner says that it makes no volume for the run's claim."""
    return RunEvent(T0 + timedelta(hours=1), EventType.WARNING, "ProvisioningFailed", message, count=7)


def with_volume() -> RunEvent:
    """A later event, with which the provisioner says that it has made the volume after all."""
    return RunEvent(
        T0 + timedelta(hours=2), EventType.NORMAL, "ProvisioningSucceeded", "Successfully provisioned", count=1
    )


def rendered(what: RenderableType, width: int) -> str:
    """Lines as a terminal of this width shows them, without what pads them."""
    console = Console(width=width)
    with console.capture() as capture:
        console.print(what)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"
