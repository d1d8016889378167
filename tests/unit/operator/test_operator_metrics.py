"""Series of the runs: computed from what is known when somebody asks."""

import pytest
from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from dynalign_contract.goodput import DeviceTime, DeviceUnit, Goodput
from dynalign_contract.stages import Stage
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.kubernetes.store import Kind
from dynalign_operator.clusters.stage_metrics import LiveMetrics
from dynalign_operator.metrics import KnownRun, OperatorMetrics, RunTexts
from dynalign_operator.metrics.operator import OPERATOR_METRICS
from dynalign_operator.metrics.runs import RUN_METRICS, progress_ratio, run_families
from dynalign_operator.planning.observed import JobObservation
from support.builders import T0, a_run
from support.simulation import Simulation, fail, succeed

NUMBERS: dict[Stage, dict[str, float | None]] = {
    Stage.FETCH: {"start_seconds": 1.5},
    Stage.PROMPTS: {"duplicate_share": 0.125, "near_duplicate_share": 0.25, "tokens": 10.0},
    Stage.GENERATE: {"tokens_per_second": 20.0},
    Stage.JUDGE: {
        "aspect_reward/knowledge": 0.25,
        "reward_std": 0.1,
        "zero_variance_share": 0.5,
        "canary_auc": 0.75,
        "canary_margin": 0.3,
        "canary_reward": 0.2,
        "judge_tau": None,
        "tokens_per_second": 30.0,
    },
    Stage.TRAIN: {"kl": 0.01},
    Stage.EVALUATE: {
        "win_rate_lc": 0.48,
        "win_rate_previous": 0.52,
        "rating": 35.0,
        "capability": 0.61,
        "capability_delta": -0.0123456,
        "capability_delta_low": -0.05,
        "capability_delta_high": 0.02,
    },
}


def fate(job: JobObservation) -> JobObservation:
    return succeed(job, **NUMBERS.get(job.step.stage, {}))


def known(simulation: Simulation, live: tuple[LiveMetrics, ...] = ()) -> KnownRun:
    return KnownRun(RunKey("n", "r"), simulation.run.status, simulation.run.spec, live)


def serve() -> OperatorMetrics:
    metrics = OperatorMetrics()
    metrics.watch(lambda: 3, lambda: 1.5)
    return metrics


def read(text: bytes) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def written(*runs: KnownRun) -> bytes:
    texts = RunTexts()
    for run in runs:
        texts.note(run.key, 1, run)
    return texts.text()


def series(*runs: KnownRun) -> dict[str, float]:
    return read(written(*runs))


def named(name: str, **labels: str) -> str:
    return f"{name}{sorted({'namespace': 'n', 'run': 'r', **labels}.items())}"


def test_a_finished_run() -> None:
    found = series(known(Simulation(a_run().with_iterations(2).build()).finish(fate)))
    assert found[named("dynalign_run_progress_ratio")] == 1.0
    assert found[named("dynalign_run_reward")] == 0.51
    assert found[named("dynalign_run_win_rate")] == 0.51
    assert found[named("dynalign_run_reward_aspect", aspect="knowledge")] == 0.25
    assert named("dynalign_run_reward_aspect", aspect="std") not in found
    assert found[named("dynalign_run_win_rate_low")] == pytest.approx(0.41)
    assert found[named("dynalign_run_win_rate_high")] == pytest.approx(0.61)
    assert found[named("dynalign_run_iterations")] == 2
    for name in ("capability", "capability_delta", "capability_delta_low", "capability_delta_high"):
        assert found[named(f"dynalign_run_{name}")] == NUMBERS[Stage.EVALUATE][name]
    for name in (
        *("duplicate_share", "near_duplicate_share", "zero_variance_share", "canary_auc", "canary_margin", "kl"),
        *("win_rate_lc", "win_rate_previous", "rating"),
    ):
        assert found[named(f"dynalign_run_{name}")] == next(n[name] for n in NUMBERS.values() if name in n)
    assert found[named("dynalign_run_tokens_per_second", stage="judge")] == 30.0
    assert found[named("dynalign_run_stage_start_seconds", stage="fetch")] == 1.5
    assert found[named("dynalign_run_condition", condition="Completed", reason="Succeeded")] == 1.0
    assert found[named("dynalign_run_condition", condition="Stalled", reason="OnTrack")] == 0.0
    assert not any(name.startswith("dynalign_run_stage[") for name in found)
    assert found[named("dynalign_run_phase", phase="Succeeded")] == 1.0
    assert found[named("dynalign_run_phase", phase="Running")] == 0.0
    assert found[named("dynalign_run_stage_seconds", stage="judge")] > 0
    assert found[named("dynalign_run_stage_seconds", stage="fetch")] > 0


def test_the_time_of_devices_by_what_it_was_used_for() -> None:
    status = Simulation(a_run().with_iterations(1).build()).finish(fate).run.status
    seconds = DeviceTime(reserved=10, useful=4, starting=3, waiting=2, wasted=1)
    goodput = Goodput(unit=DeviceUnit.POD, share=0.4, seconds=seconds, since=T0, until=T0)
    run = KnownRun(RunKey("n", "r"), status.evolve(goodput=goodput), a_run().build().spec)
    found = series(run)
    assert found[named("dynalign_run_goodput_ratio")] == 0.4
    kinds = {name: found[named("dynalign_run_device_seconds", unit="Pod", kind=name)] for name in seconds.figures}
    assert kinds == {"reserved": 10, "useful": 4, "starting": 3, "waiting": 2, "wasted": 1, "unknown": 0}
    untold = series(KnownRun(RunKey("n", "r"), status.evolve(goodput=None), run.spec))
    assert not any("goodput" in name or "device" in name for name in untold)


def test_progress_counts_the_running_stage_by_what_it_says() -> None:
    simulation = Simulation(a_run().with_iterations(2).build()).until(Stage.JUDGE, 0)
    assert progress_ratio(known(simulation)) == 3 / 12
    half = (LiveMetrics(done=2, total=8, tokens_per_second=10.0), LiveMetrics(done=4, total=4, tokens_per_second=5.0))
    assert progress_ratio(known(simulation, half)) == 3.5 / 12
    assert series(known(simulation, half))[named("dynalign_run_tokens_per_second", stage="judge")] == 15.0


def test_the_rate_of_a_finished_stage_is_that_of_all_its_shards() -> None:
    found = series(known(Simulation(a_run().with_iterations(1).with_shards(4).build()).finish(fate)))
    assert found[named("dynalign_run_tokens_per_second", stage="generate")] == 4 * 20.0


@pytest.mark.parametrize(
    ("spec", "done", "share"),
    [
        ({"prompts": {"refresh": "Once"}, "evaluation": {"every": 5}}, Stage.EXPORT, 34 / 35),
        ({"prompts": {"refresh": "Once"}}, Stage.EXPORT, 42 / 43),
        ({"evaluation": {"every": 3}}, Stage.EXPORT, 45 / 46),
        ({}, Stage.EXPORT, 51 / 52),
    ],
)
def test_progress_counts_the_stages_that_the_run_will_have(spec: dict[str, object], done: Stage, share: float) -> None:
    """The last thing before the end is nearly everything, whatever stages are left out."""
    simulation = Simulation(a_run().with_iterations(10).with_spec(**spec).build())
    seen = [progress_ratio(known(simulation))]
    while simulation.run.status.stage is not done:
        simulation.step(fate)
        seen.append(progress_ratio(known(simulation)))
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(share)


def test_a_run_that_is_gone_leaves_nothing() -> None:
    assert not any(name.startswith("dynalign_run_") for name in series())


def test_failed_attempts_of_the_current_stage() -> None:
    simulation = Simulation(a_run().with_iterations(2).build())
    simulation.until(Stage.GENERATE, 0)
    name = named("dynalign_run_stage_failures", stage="generate")
    assert series(known(simulation))[name] == 0
    simulation.step(lambda job: fail(job, 1))
    simulation.plan()
    assert series(known(simulation))[name] == 1


def test_of_the_operator() -> None:
    metrics = serve()
    metrics.record_request("GET", 200, 0.5)
    metrics.record_request("GET", 0, 30.0)
    metrics.record_event(Kind.POD)
    metrics.record_comparison({Kind.RUN: 0, Kind.JOB: 2}, 1000.0)
    metrics.record_comparison({Kind.RUN: 0, Kind.JOB: 1}, 1060.0)
    found = read(generate_latest(metrics.registry))
    assert found["dynalign_queue_depth[]"] == 3
    assert found["dynalign_queue_age_seconds[]"] == 1.5
    assert found["dynalign_api_request_seconds_sum[('method', 'GET'), ('status', '200')]"] == 0.5
    assert found["dynalign_api_request_seconds_count[('method', 'GET'), ('status', '0')]"] == 1
    assert found["dynalign_watch_events_total[('kind', 'Pod')]"] == 1
    assert found["dynalign_watch_missed_changes_total[('kind', 'Job')]"] == 3
    assert found["dynalign_watch_missed_changes_total[('kind', 'Pod')]"] == 0
    assert found["dynalign_comparison_timestamp_seconds[]"] == 1060.0


def test_everything_that_is_defined_is_served_and_nothing_else() -> None:
    metrics = serve()
    families = {
        family.name: set(family._labelnames) for family in metrics.registry.collect() if hasattr(family, "_labelnames")
    }
    defined = {metric.name: set(metric.labels) for metric in OPERATOR_METRICS}
    assert {family.name for family in metrics.registry.collect()} == set(defined)
    assert {name: defined[name] for name in families} == families
    of_runs = {family.name for family in text_string_to_metric_families(written().decode())}
    assert of_runs == {metric.name for metric in RUN_METRICS}


def test_the_text_of_many_runs_is_what_the_library_writes_of_them() -> None:
    """Kept lines of single runs, put together, are what all runs at once would give."""

    class All:
        def collect(self) -> list[Metric]:
            return run_families(runs)

    finished = Simulation(a_run().with_iterations(2).build()).finish(fate).run
    begun = Simulation(a_run().with_iterations(2).build()).until(Stage.JUDGE, 0).run
    runs = [
        KnownRun(RunKey("n", n), run.status, run.spec) for n, run in (("a", finished), ("b", begun), ("c", finished))
    ]
    assert written(*runs) == generate_latest(All())


def test_of_a_run_that_has_not_changed_nothing_is_computed_anew() -> None:
    texts, run = RunTexts(), known(Simulation(a_run().build()).finish(fate))
    assert not texts.is_current(run.key, 1)
    texts.note(run.key, 1, run)
    assert texts.is_current(run.key, 1)
    assert not texts.is_current(run.key, 2)
    texts.note(run.key, 2, None)
    assert texts.is_current(run.key, 2)
    assert read(texts.text()) == {}
    texts.keep(())
    assert not texts.is_current(run.key, 2)


def test_labels_never_name_an_iteration_a_pod_or_a_uid() -> None:
    labels = {label for metric in (*OPERATOR_METRICS, *RUN_METRICS) for label in metric.labels}
    assert labels == {
        *("namespace", "run", "stage", "phase", "condition", "reason", "aspect", "verifier", "judge"),
        *("method", "status", "kind", "unit"),
    }
