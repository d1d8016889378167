"""Runs that the live page shows: working folders whose runs move on, with numbers of a real run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from dynalign_contract.metrics import JudgeMetrics
from dynalign_contract.stages import Stage
from dynalign_operator.clusters.local.workdir import Workdir, write_run
from dynalign_operator.planning.observed import JobObservation, JobPhase
from dynalign_operator.planning.plan import Plan
from support.builders import RunBuilder, a_run
from support.simulation import Simulation, fail, succeed

_RESULTS = Path(__file__).parents[2] / "docs" / "results" / "smollm2-five-iterations.json"
_HOURS = timedelta(hours=2)


def numbers_of(job: JobObservation) -> dict[str, float | None]:
    """What a stage of a real run has measured in this iteration."""
    return {} if job.iteration is None else _measured()[job.iteration % len(_measured())].get(str(job.stage), {})


@cache
def _measured() -> list[dict[str, Any]]:
    """Iteration -> stage -> metrics under today's names, and a held-out reward, which that run did not measure yet."""
    found = [entry["stages"] for entry in json.loads(_RESULTS.read_text())["iterations"]]
    for index, stages in enumerate(found):
        for aspect in ("knowledge", "benevolence", "power", "vitality"):
            stages["judge"][JudgeMetrics.aspect_reward.of(aspect).name] = stages["judge"].pop(f"reward_{aspect}")
        reward, gain = 0.62 + 0.018 * index, 0.018 * index + 0.004
        for name, value in (("held_out_reward", reward), ("held_out_reward_delta", gain)):
            stages["evaluate"] |= {name: value, f"{name}_low": value - 0.02, f"{name}_high": value + 0.02}
    return found


def do_well(job: JobObservation) -> JobObservation:
    return succeed(job, **numbers_of(job))


def keep_running(job: JobObservation) -> JobObservation:
    return job


@dataclass
class TimedSimulation(Simulation):
    """Keeps the time of each event."""

    times: list[datetime] = field(default_factory=list)

    def plan(self, *, status_is_lost: bool = False) -> Plan:
        decided = super().plan(status_is_lost=status_is_lost)
        self.times += [self.now] * (len(self.events) - len(self.times))
        return decided


@dataclass
class LiveRun:
    """A run that moves when it is told to, in a working folder or as a value."""

    simulation: TimedSimulation
    folder: Path | None = None
    lines: dict[str, list[str]] = field(default_factory=dict)

    def until(self, stage: Stage, iteration: int | None = None) -> LiveRun:
        """Move on until a step's Job runs."""
        self.simulation.until(stage, iteration, do_well)
        self.simulation.step(keep_running)
        self.simulation.plan()
        return self._store()

    def awaiting_approval(self) -> LiveRun:
        """Move on until a gate of `policy.approval` is reached. Fails where none is."""
        for _ in range(60):
            self.simulation.step(do_well)
            if self.simulation.run.status.awaited_approval is not None:
                return self._store()
        raise AssertionError("the run waits for nobody")

    def finished(self) -> LiveRun:
        self.simulation.finish(do_well)
        return self._store()

    def failing(self, code: int) -> LiveRun:
        """Every later attempt ends with this exit code."""
        self.simulation.finish(lambda job: fail(job, code) if job.phase is JobPhase.ACTIVE else job)
        return self._store()

    def saying(self, *lines: str) -> LiveRun:
        """Add lines to the log of the current Job."""
        job = next(reversed(self.simulation.jobs))
        self.lines.setdefault(job, []).extend(lines)
        return self._store()

    def _store(self) -> LiveRun:
        if self.folder is None:
            return self
        workdir = Workdir(self.folder)
        workdir.events.parent.mkdir(parents=True, exist_ok=True)
        write_run(workdir, self.simulation.run)
        events = zip(self.simulation.times, self.simulation.events, strict=True)
        lines = (f"{at.isoformat()} {one.type} {one.reason} {one.message}\n" for at, one in events)
        workdir.events.write_text("".join(lines))
        for job, said in self.lines.items():
            workdir.log(job, 0, 1).write_text("".join(f"{line}\n" for line in said))
        return self


def a_live_run(name: str, folder: Path | None = None, run: RunBuilder | None = None) -> LiveRun:
    """A run of five iterations that began two hours ago."""
    built = (run or a_run().with_iterations(5)).named(name).build()
    simulation = TimedSimulation(built, now=datetime.now(UTC).replace(microsecond=0) - _HOURS)
    return LiveRun(simulation, folder)


def with_bundled_model() -> RunBuilder:
    """A run as a user of the bundled model writes it."""
    return a_run().with_iterations(5).with_spec(model={"uri": "bundled://smollm2-135m-instruct"})
