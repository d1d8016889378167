"""An operator's patience with the last report of a run: what it writes to trackers follows when they are back."""

from dataclasses import replace
from datetime import timedelta

from dynalign_contract.stages import SIDE_STAGES, Stage
from dynalign_operator.api.status import ConditionType, Phase, ReportStatus, StagePhase
from dynalign_operator.manifests.installation import REPORT_RETRIES_AT_END
from dynalign_operator.service.settings import read_settings
from support.builders import a_failure, a_run
from support.planning import condition
from support.simulation import Simulation, fail, succeed


def report_of(simulation: Simulation) -> ReportStatus:
    assert simulation.run.status.report is not None
    return simulation.run.status.report


def test_an_operator_tries_the_last_report_again_for_a_day() -> None:
    """A tracker that is down when the run ends has its record in the end, without anybody's help."""
    down = a_failure(1, "spec.tracking.mlflow was not written; report.html is up to date")
    builder = a_run().with_iterations(2).with_spec(tracking={"mlflow": {"url": "http://mlflow:5000"}})
    simulation = Simulation(
        builder.build(),
        report_fate=lambda job: replace(fail(job, 1), results=(down,)),
        settings=read_settings({}).build,
    ).until(Stage.EXPORT)
    simulation.step(succeed)
    ended = simulation.now
    while report_of(simulation).failures < 20:
        simulation.step(succeed)
    assert simulation.now - ended > timedelta(hours=6)
    reported = condition(simulation.run.status, ConditionType.REPORTED)
    assert "spec.tracking.mlflow was not written" in reported.message
    assert "UTC, attempt 21 of 31." in reported.message
    assert simulation.run.status.phase is Phase.SUCCEEDED
    assert len([job for job in simulation.jobs.values() if job.stage in SIDE_STAGES]) <= 2, "others would pile up"

    simulation.report_fate = succeed
    simulation.finish()
    assert report_of(simulation).phase is StagePhase.SUCCEEDED
    assert condition(simulation.run.status, ConditionType.REPORTED).status == "True"


def test_an_operator_gives_the_last_report_up_at_last() -> None:
    simulation = Simulation(
        a_run().with_iterations(1).build(), report_fate=lambda job: fail(job, 1), settings=read_settings({}).build
    ).finish()
    assert report_of(simulation).failures == REPORT_RETRIES_AT_END + 1
    assert report_of(simulation).phase is StagePhase.FAILED
