"""The contender `dynalign`: one iteration by `dynalign run`, from its command to the end of training."""

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import yaml

from benchmarks.peers.measurement import Contender, Measurement
from benchmarks.peers.plan import GENERATE, JUDGE, TRAIN, PeerError, Plan, Prompt, Report, digest_of
from dynalign_contract.layout import PROMPTS_FILE, RunLayout
from dynalign_contract.metrics import STAGE_METRICS, TrainMetrics, read_metrics
from dynalign_contract.records import JUDGEMENT, PROMPT, ROLLOUT, read_parts, read_rows
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import StagePhase, StageStatus
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.local.records import read_records
from dynalign_operator.clusters.local.workdir import Workdir, read_run
from dynalign_operator.manifests.labels import read_job_labels
from lab.local_runs import COMMAND

EXAMPLE: Final = Path(__file__).parents[2] / "examples/smollm2.yaml"
_LOOK_EVERY_SECONDS: Final = 0.25
_PROMPTS_PER_UPDATE: Final = 4
_TARGETS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PARTS: Final = {Stage.GENERATE: GENERATE, Stage.JUDGE: JUDGE, Stage.TRAIN: TRAIN}


@dataclass(frozen=True)
class Size:
    """How much the iteration has to do."""

    prompts: int = 16
    candidates: int = 8
    tokens: int = 40
    """Tokens of an answer, at most."""

    @property
    def prompts_per_update(self) -> int:
        """Prompts of one optimiser step: as many as in the example, or fewer so that every step has the same."""
        return max(n for n in range(1, _PROMPTS_PER_UPDATE + 1) if self.prompts % n == 0)


def build_run(size: Size, model: Path, supplied: Path) -> dict[str, Any]:
    """The run file: the example in another size, with prompts of the user's own and no question beyond the iteration's.

    Canaries and second questions (`minMass`) are left out, because the peers have none; so is what only evaluates.
    """
    run: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    run["metadata"]["name"] = "peer"
    spec = run["spec"]
    spec["model"] = {"uri": str(model.absolute())}
    spec["iterations"] = 1
    spec["rollout"] = "Fused"
    spec["prompts"] = {
        "perIteration": size.prompts,
        "heldOut": 1,
        "maxTokens": spec["prompts"]["maxTokens"],
        "supplied": {"uri": str(supplied.absolute())},
    }
    spec["generation"] |= {"candidates": size.candidates, "maxTokens": size.tokens}
    spec["judging"] = {"minMass": 0, "canaries": {"prompts": 0, "injections": 0}, "baseAgreementPrompts": 0}
    spec["training"] |= {"promptsPerStep": size.prompts_per_update, "lora": {"targetModules": list(_TARGETS)}}
    spec["evaluation"] = {"winRate": {"method": "Pointwise", "judges": ["Base"], "maxTokens": 1}}
    spec["report"] = {"when": "Never"}
    return run


def measure_ours(run: Mapping[str, Any], workdir: Path, number: int) -> Measurement:
    """Run dynalign until the training has ended, then stop it: the evaluation belongs to nobody else's work.

    Raises PeerError when it ends before that.
    """
    workdir.mkdir(parents=True)
    file = workdir.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(dict(run), sort_keys=False))
    command, started = [*COMMAND, "run", str(file), "--workdir", str(workdir), "--plain"], time.monotonic()
    with subprocess.Popen(command, stdout=sys.stderr, start_new_session=True) as process:
        try:
            stages = _await_training(process, Workdir(workdir.absolute()))
            seconds, cpu = time.monotonic() - started, tree_cpu_seconds(process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
    return Measurement(
        contender=Contender.DYNALIGN,
        round=number,
        wall=_wall(Workdir(workdir.absolute())),
        command=seconds,
        cpu=cpu,
        report=_report(RunLayout(workdir), stages),
    )


def read_plan(run: Mapping[str, Any], workdir: Path) -> Plan:
    """What the peers get: the model, the prompts that the run has trained on, and its settings."""
    spec = AlignmentRun.model_validate(run).spec
    rows = read_rows(RunLayout(workdir).stage(Stage.PROMPTS, 0) / PROMPTS_FILE, PROMPT)
    return Plan(
        model=Path(spec.model.uri),
        prompts=tuple(Prompt(prompt_id=row["prompt_id"], text=row["messages"][-1]["content"]) for row in rows),
        seed=spec.seed,
        engine=spec.engine,
        generation=spec.generation,
        judging=spec.judging,
        training=spec.training,
    )


def tree_cpu_seconds(pid: int) -> float:
    """Processor time of a process and all its descendants, those that have ended included."""
    total = 0.0
    root = psutil.Process(pid)
    for process in (root, *root.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue  # its parent has its time now
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _await_training(process: subprocess.Popen[bytes], workdir: Workdir) -> dict[Stage, StageStatus]:
    while process.poll() is None:
        time.sleep(_LOOK_EVERY_SECONDS)
        run = read_run(workdir)
        if run is None or not run.status.iterations:
            continue
        stages = {entry.stage: entry for entry in run.status.iterations[0].stages}
        if Stage.TRAIN in stages and stages[Stage.TRAIN].phase is StagePhase.SUCCEEDED:
            return stages
    raise PeerError(
        f"dynalign run ended with code {process.returncode} before its training had; {workdir.root} has logs"
    )


def _wall(workdir: Workdir) -> float:
    """Seconds from the creation of the rollout's Job to the end of the one that trains."""
    found = {}
    for record in read_records(workdir).values():
        labels = read_job_labels(record.labels)
        if labels is not None:
            found[labels.stage] = record
    begin, end = found[Stage.ROLLOUT].creation_time, found[Stage.TRAIN].completion_time
    if end is None:
        raise PeerError(f"the record of the training in {workdir.jobs} has no completion time")
    return (end - begin).total_seconds()


def _report(layout: RunLayout, stages: Mapping[Stage, StageStatus]) -> Report:
    rollouts = read_parts([layout.stage(Stage.GENERATE, 0)], ROLLOUT)
    judgements = read_parts([layout.stage(Stage.JUDGE, 0)], JUDGEMENT)
    values = {stage: read_metrics(stage, stages[stage].metrics) for stage in _PARTS}
    return Report(
        seconds={part: values[stage][STAGE_METRICS[stage].useful_seconds] for stage, part in _PARTS.items()},
        tokens=sum(len(row["completion_ids"]) for row in rollouts),
        questions=sum(len(row["scores"]) + row["retries"] for row in judgements),
        updates=round(values[Stage.TRAIN][TrainMetrics.trained_steps]),
        prompts=digest_of({row["prompt_id"]: row["prompt_ids"] for row in rollouts}),
    )
