"""What bench-start reads from a run's folder: phases from logs, the end of a process from its Job's record."""

from datetime import timedelta
from pathlib import Path

import pytest

from benchmarks.start import END, mean_overhead, read_processes, useful_share
from dynalign_contract.phases import Phase, describe_phases
from dynalign_contract.stages import Stage
from dynalign_operator.clusters.local.records import JobRecord, write_record
from dynalign_operator.clusters.local.workdir import Workdir
from dynalign_operator.manifests.labels import JobLabels, job_labels
from support.builders import T0


def test_the_end_of_a_process_is_what_its_phases_leave_of_its_time(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    for stage, phases in (
        (Stage.JUDGE, {Phase.ENGINE: 3.0, Phase.WORK: 5.0}),
        (Stage.GENERATE, {Phase.ENGINE: 2.0, Phase.WORK: 6.0}),
        (Stage.FETCH, {Phase.WORK: 1.0}),
    ):
        labels = job_labels(JobLabels("r", stage, None if stage is Stage.FETCH else 1, 1))
        record = JobRecord(name=f"r-{stage}", labels=labels, completions=1, creation_time=T0)
        write_record(workdir, record.with_pod(0, T0).with_pod_ended(T0 + timedelta(seconds=10)))
        log = workdir.log(record.name, 0, 1)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(describe_phases(phases) + "\n")
    generate, judge = read_processes(workdir)
    assert (generate.stage, judge.stage) == (Stage.GENERATE, Stage.JUDGE)
    assert generate.seconds == {Phase.ENGINE: 2.0, Phase.WORK: 6.0, END: 2.0}
    assert mean_overhead([generate, judge], Stage.JUDGE) == pytest.approx(5)
    assert useful_share([generate, judge]) == pytest.approx(11 / 20)
