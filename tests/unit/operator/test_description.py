"""What `dynalign describe` says of a run in each state: goldens in tests/data/describe, for two widths of terminal."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dynalign_contract.stages import Stage
from dynalign_operator.cli.description import describe_run
from dynalign_operator.cli.situation import count_requested_gpus, explain_situation
from dynalign_operator.clusters.run_source import RunEvent, RunSnapshot
from dynalign_operator.planning.observed import JobObservation, JobProgress
from support.builders import a_failure, a_run
from support.goldens import Goldens
from support.simulation import Simulation, fail, publish, succeed
from support.snapshots import ON_THIS_MACHINE, refusal, rendered, seen, snapshot_of, with_volume, without_volume

State = tuple[RunSnapshot, tuple[RunEvent, ...], Simulation]
GPUS = {"gpusPerNode": 4, "nodes": 2}
UNSCHEDULABLE = "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def of(simulation: Simulation, *more: RunEvent) -> State:
    return snapshot_of(simulation), (*seen(simulation.events), *more), simulation


def at_train(**changes: object) -> tuple[Simulation, JobObservation]:
    """A run whose train Job of iteration 1 has just been created, changed."""
    simulation = Simulation(a_run().with_spec(training=GPUS).build()).until(Stage.TRAIN, 1)
    job = replace(list(simulation.jobs.values())[-1], **changes)  # type: ignore[arg-type]
    simulation.jobs[job.name] = job
    return simulation, job


def running() -> State:
    simulation, _ = at_train()
    simulation.step(lambda job: replace(job, progress=JobProgress(3, 4)))
    simulation.plan()
    return of(simulation)


def waiting_for_quota() -> State:
    simulation, job = at_train(missing_pods=2)
    simulation.now += timedelta(minutes=2)
    simulation.plan()
    said = 'Error creating: pods "r-i001-train-a1-0" is forbidden: exceeded quota: gpus, requested: 4, limited: 0'
    return of(simulation, refusal(job.name, said))


def waiting_for_a_node() -> State:
    simulation, _ = at_train(reason="Unschedulable", message=UNSCHEDULABLE)
    simulation.plan()
    return of(simulation)


def waiting_for_a_volume() -> State:
    simulation = Simulation(a_run().build())
    simulation.plan()
    said = 'failed to provision volume with StorageClass "standard": NodePath only supports ReadWriteOnce access modes'
    return of(simulation, without_volume(said))


def queued() -> State:
    run = a_run().with_spec(training=GPUS, scheduling={"queueName": "gpus"}).build()
    simulation = Simulation(run).until(Stage.TRAIN, 0)
    name = list(simulation.jobs)[-1]
    simulation.jobs[name] = replace(simulation.jobs[name], suspended=True)
    simulation.plan()
    return of(simulation)


def refused_by_a_gate() -> State:
    simulation = Simulation(a_run().build()).until(Stage.JUDGE, 0)
    unfit = a_failure(12, "the canaries outscore real answers: AUC 0.41, and spec.judging.gates.minCanaryAuc is 0.6")
    simulation.step(lambda job: replace(fail(job, 12), results=(unfit,)))
    simulation.plan()
    return of(simulation)


def held() -> State:
    run = a_run().with_spec(objective={"configMapRef": {"name": "mine"}}).build()
    simulation = Simulation(run)
    simulation.plan()
    return of(simulation)


def retrying() -> State:
    simulation, _ = at_train()
    for _ in range(2):
        simulation.step(lambda job: fail(job, 1))
    simulation.plan()
    return of(simulation)


def failed() -> State:
    simulation = Simulation(a_run().with_policy(retries=1).build()).until(Stage.GENERATE, 0)
    simulation.finish(lambda job: replace(fail(job, 1), results=(a_failure(1, "CUDA error: device lost"),)))
    return of(simulation)


def suspended() -> State:
    simulation, _ = at_train()
    simulation.change_spec(suspend=True)
    simulation.finish()
    return of(simulation)


def awaiting_approval() -> State:
    simulation = Simulation(a_run().with_policy(approval=["BeforeTrain"]).build())
    while simulation.run.status.awaited_approval is None:
        simulation.step(succeed)
    return of(simulation)


def succeeded() -> State:
    return of(Simulation(a_run().build()).finish(succeed))


def stopped_on_this_machine() -> State:
    simulation, _ = at_train()
    return snapshot_of(simulation, ON_THIS_MACHINE, is_driven=False), seen(simulation.events), simulation


def new() -> State:
    return of(Simulation(a_run().build()))


STATES: dict[str, Callable[[], State]] = {
    "running": running,
    "waiting-for-quota": waiting_for_quota,
    "waiting-for-a-node": waiting_for_a_node,
    "waiting-for-a-volume": waiting_for_a_volume,
    "queued": queued,
    "refused-by-a-gate": refused_by_a_gate,
    "held": held,
    "retrying": retrying,
    "failed": failed,
    "suspended": suspended,
    "awaiting-approval": awaiting_approval,
    "succeeded": succeeded,
    "stopped-on-this-machine": stopped_on_this_machine,
    "new": new,
}


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("name", STATES)
def test_a_description_looks_like_this(name: str, width: int, goldens: Goldens) -> None:
    snapshot, events, simulation = STATES[name]()
    text = rendered(describe_run(snapshot, events, simulation.now), width)
    assert max(map(len, text.splitlines())) <= width
    goldens.check_text(f"describe/{name}-{width}.txt", text)


def test_places_of_publication_are_named() -> None:
    uri = "s3://models/mine"
    finished = Simulation(a_run().build()).finish(lambda job: publish(job, uri))
    snapshot, events, simulation = of(finished)
    assert [place.uri for place in snapshot.run.status.published] == [uri]
    assert uri in rendered(describe_run(snapshot, events, simulation.now), 80)


def test_the_documentation_shows_what_is_printed() -> None:
    snapshot, events, simulation = waiting_for_quota()
    head, _, _ = rendered(describe_run(snapshot, events, simulation.now), 128).partition("\nLatest iterations")
    assert f"```text\n{head}```" in (Path(__file__).parents[3] / "docs" / "terminal.md").read_text()


def test_a_volume_that_was_made_after_all_is_waited_for_no_more() -> None:
    snapshot, events, simulation = waiting_for_a_volume()
    situation = explain_situation(snapshot, (*events, with_volume()), simulation.now)
    assert "NodePath" not in " ".join(situation.waits)
    assert "what the claim lacks" not in " ".join(situation.to_do)


SENTENCES = {
    "running": ("does", "Job r-i001-train-a1 runs train of iteration 1, attempt 1, for 0 s; 75% of it is done."),
    "waiting-for-quota": ("waits", "exceeded quota: gpus, requested: 4, limited: 0"),
    "waiting-for-a-node": ("to_do", "Free or add what the scheduler misses"),
    "waiting-for-a-volume": ("waits", "NodePath only supports ReadWriteOnce access modes"),
    "queued": ("waits", "For Kueue (LocalQueue gpus) to admit it; 8 GPUs are requested."),
    "refused-by-a-gate": ("does", "the canaries outscore real answers"),
    "held": ("waits", "ConfigMap mine"),
    "retrying": ("waits", "For the next attempt, 3: at "),
    "failed": ("to_do", '-p \'{"spec":{"policy":{"retries":2}}}\''),
    "suspended": ("to_do", 'kubectl patch ar r -n team --type=merge -p \'{"spec":{"suspend":false}}\''),
    "awaiting-approval": ("to_do", "Then `dynalign approve r -n team`, or with --reject REASON."),
    "succeeded": ("to_do", "Nothing. The model lies in PersistentVolumeClaim r, folder /r/export."),
    "stopped-on-this-machine": ("to_do", "Give `dynalign run FILE` again"),
    "new": ("does", "No operator has looked at the run yet."),
}


@pytest.mark.parametrize("name", STATES)
def test_what_matters_is_said(name: str) -> None:
    snapshot, events, simulation = STATES[name]()
    part, words = SENTENCES[name]
    assert words in " ".join(getattr(explain_situation(snapshot, events, simulation.now), part))


@pytest.mark.parametrize(
    ("name", "gpus"),
    [("running", 8), ("waiting-for-quota", 8), ("queued", 8), ("retrying", 0), ("suspended", 0), ("succeeded", 0)],
)
def test_gpus_are_those_of_the_pods_that_a_job_asks_for(name: str, gpus: int) -> None:
    assert count_requested_gpus(STATES[name]()[0].run) == gpus


def test_the_requested_gpus_are_what_the_manifest_asks_for() -> None:
    simulation, job = at_train()
    manifest = next(bundle.job for bundle in simulation.created if bundle.name == job.name)
    limits = manifest["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    asked = int(limits["nvidia.com/gpu"]) * manifest["spec"]["parallelism"]
    assert asked == count_requested_gpus(simulation.run) == 8
