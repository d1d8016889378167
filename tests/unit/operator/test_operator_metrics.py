"""Series of the runs: computed from what is known when somebody asks."""

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dynalign_contract.stages import Stage
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.stage_metrics import LiveMetrics
from dynalign_operator.metrics import KnownRun, OperatorMetrics, progress_ratio
from dynalign_operator.planning.observed import JobObservation
from support.builders import a_run
from support.simulation import Simulation, succeed


def fate(job: JobObservation) -> JobObservation:
    numbers = {"reward_knowledge": 0.25, "reward_std": 0.1, "canary_auc": 0.75} if job.step.stage is Stage.JUDGE else {}
    return succeed(job, **numbers)


def known(simulation: Simulation, live: tuple[LiveMetrics, ...] = ()) -> KnownRun:
    return KnownRun(RunKey("n", "r"), simulation.run.status, simulation.run.spec.iterations, live)


def series(*runs: KnownRun) -> dict[str, float]:
    metrics = OperatorMetrics()
    metrics.watch(lambda: runs, lambda: 3)
    text = generate_latest(metrics.registry).decode()
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def named(name: str, **labels: str) -> str:
    return f"{name}{sorted({'namespace': 'n', 'run': 'r', **labels}.items())}"


def test_a_finished_run() -> None:
    found = series(known(Simulation(a_run().with_iterations(2).build()).finish(fate)))
    assert found[named("dynalign_run_progress_ratio")] == 1.0
    assert found[named("dynalign_run_reward")] == 0.51
    assert found[named("dynalign_run_win_rate")] == 0.51
    assert found[named("dynalign_run_reward_aspect", aspect="knowledge")] == 0.25
    assert named("dynalign_run_reward_aspect", aspect="std") not in found
    assert found[named("dynalign_run_canary_auc")] == 0.75
    assert found[named("dynalign_run_phase", phase="Succeeded")] == 1.0
    assert found[named("dynalign_run_phase", phase="Running")] == 0.0
    assert found[named("dynalign_run_stage_seconds", stage="judge")] > 0
    assert found["dynalign_queue_depth[]"] == 3


def test_progress_counts_the_running_stage_by_what_it_says() -> None:
    simulation = Simulation(a_run().with_iterations(2).build()).until(Stage.JUDGE, 0)
    assert progress_ratio(known(simulation)) == 3 / 12
    half = (LiveMetrics(done=2, total=8, tokens_per_second=10.0), LiveMetrics(done=4, total=4, tokens_per_second=5.0))
    assert progress_ratio(known(simulation, half)) == 3.5 / 12
    assert series(known(simulation, half))[named("dynalign_run_tokens_per_second")] == 15.0


def test_a_run_that_is_gone_leaves_nothing() -> None:
    assert not any(name.startswith("dynalign_run_") for name in series())
