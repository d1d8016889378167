"""Plans of simulated runs: what a test of the planner begins with and looks at."""

from datetime import timedelta

from dynalign_contract.config import StageConfig
from dynalign_operator.api.status import AlignmentRunStatus, Condition, ConditionType
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.planning.observed import JobObservation, Observed
from dynalign_operator.planning.plan import Plan
from dynalign_operator.planning.planner import plan
from support.builders import T0, a_run
from support.simulation import SETTINGS, Fate, Simulation, config_of_bundle, fail, succeed


def condition(status: AlignmentRunStatus, kind: ConditionType) -> Condition:
    return next(entry for entry in status.conditions if entry.type is kind)


def planned(run: AlignmentRun, *jobs: JobObservation, after: timedelta = timedelta(0)) -> Plan:
    return plan(Observed(run, jobs), T0 + after, SETTINGS)


def started(**policy: object) -> Simulation:
    """A run whose fetch Job has just been created."""
    simulation = Simulation(a_run().with_policy(**policy).build() if policy else a_run().build())
    simulation.plan()
    return simulation


def fate_of(step: str, *fates: Fate) -> Fate:
    """The given fates for the attempts of one step; success for all else and afterwards."""
    left = list(fates)
    return lambda job: left.pop(0)(job) if str(job.step) == step and left else succeed(job)


def exits(code: int) -> Fate:
    return lambda job: fail(job, code)


def config_of(simulation: Simulation, step: str) -> StageConfig:
    """The StageConfig of a step's latest Job."""
    bundle = [bundle for bundle in simulation.all_created if str(bundle.step) == step][-1]
    return config_of_bundle(bundle)
