"""What travels between the train stage and its worker processes: one job file in, step reports and one result out."""

from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from dynalign_contract.base import Model
from dynalign_contract.files import write_bytes
from dynalign_contract.result import ResultError
from dynalign_contract.settings import Checkpoints, DType, TrainingSettings
from dynalign_contract.training_choice import TrainingChoice
from dynalign_trainer.train.epochs import order_steps

JOB_FILE: Final = "job.json"
RESULT_FILE: Final = "result.json"
REPORTS_FILE: Final = "steps.jsonl"
BEGUN_FILE: Final = "begun"
"""Appears when the model is loaded and the workers begin with the batch."""
STOP_FILE: Final = "stop"
"""Asks the workers, by its existence, to end after the step that they are taking, and before that to save a checkpoint
if it will be whole in time; it holds the time, in seconds since 1970, at which they are killed, or nothing."""


class TrainJob(Model):
    """Everything that a worker process needs; paths are absolute.

    Workers start with a job file without `group_size` and load the model, while the stage builds the batch.
    """

    model: Path
    """The base model, a Hugging Face folder."""
    start: Path | None
    """Folder of the policy that training continues from; None starts from the base model."""
    batch: Path
    """Parquet file with the rows of `records.BATCH`; there, with its manifest, once `group_size` is known."""
    work: Path
    """Checkpoints, reports and the result."""
    output: Path
    """Where the trained policy goes."""
    training: TrainingSettings
    checkpoints: Checkpoints = TrainingSettings().checkpoints
    dtype: DType = DType.AUTO
    """`engine.dtype`: trainer and sampler compute alike."""
    temperature: float
    """At which the rollouts were sampled; log-probabilities are those of logits divided by it."""
    max_tokens: int
    """The constant length of `aggregation: Constant`."""
    group_size: int | None = None
    """Candidates of the largest group; None in a job file whose batch is still being built."""
    iteration: int
    config_digest: str
    seed: int
    resume: Path | None = None
    """Sealed checkpoint to go on from."""

    @property
    def rows_per_full_step(self) -> int:
        """Sequences of a step with all its groups: with `max_tokens` the constant divisor of Dr. GRPO."""
        if self.group_size is None:
            raise RuntimeError("the job's batch is not there yet (batch_wait)")
        return self.training.prompts_per_step * self.group_size

    def order(self, steps: int) -> tuple[int, ...]:
        """Which of the batch's `steps` each optimiser step takes (`training.epochs`)."""
        return order_steps(steps, epochs=self.training.epochs, seed=self.seed)


class StepMeasures(Model):
    """Statistics of one optimiser step over all ranks; means are over loss tokens."""

    loss_tokens: int = 0
    loss: float
    kl: float
    """Nats a token to the reference, or to the iteration's start if the KL term is off (`measure_tokens`)."""
    entropy: float
    ratio_mean: float
    ratio_max: float
    clip_share: float


class StepReport(StepMeasures):
    """What the workers report of a finished step."""

    step: int
    """Steps finished, from 1."""
    steps: int
    grad_norm: float | None
    tokens: int
    """Prompt and completion tokens that were trained on."""
    seconds: float
    """Wall time of the step."""
    flops: float | None = None
    """Operations that the model needs for it (`model_flops`); None for a model whose sizes are not known."""


class WorkerOutcome(StrEnum):
    """How the workers ended."""

    TRAINED = "Trained"
    STOPPED = "Stopped"
    """Asked to, after saving a checkpoint."""
    REFUSED = "Refused"
    """The job cannot work; `error` says why."""


class Mismatch(Model):
    """Sampler against trainer before the first step, over all rows of the batch (docs/method.md, "Reference pass")."""

    rows: int = 0
    rejected: int = 0
    """Rows whose geometric-mean ratio lies outside `training.ratioBand`."""
    logprob_difference: float | None = None
    """Mean of |log ratio| over tokens."""
    ratio_mean: float | None = None
    ratio_max: float | None = None


class Link(Model):
    """Two nodes of a training and how fast they exchange data."""

    nodes: tuple[int, int]
    """Their ranks."""
    gigabytes_per_second: float
    """In each direction."""


class WorkerResult(Model):
    """The workers' last word, written by rank 0."""

    outcome: WorkerOutcome
    error: ResultError | None = None
    mismatch: Mismatch = Mismatch()
    training: TrainingChoice | None = None
    """How the policy was trained."""
    reference_seconds: float = 0.0
    """Wall time of the reference pass; 0 where it was read from a checkpoint."""
    links: tuple[Link, ...] = ()
    """Between neighbouring nodes, before the first step; none for a single node."""
    peak_memory_bytes: int = 0
    """Largest memory of a process at any time: of its GPU, or of the machine where it has none."""
    peak_flops: float | None = None
    """Operations a second of all processes' GPUs at their peak, in bfloat16; None where that is not known."""
    norm_change: float = 0.0
    """Euclidean distance between the trained parameters after and before training."""


def write_job(job: TrainJob) -> None:
    """Leave the job file for the workers, in place of an earlier one."""
    write_bytes(job.work / JOB_FILE, job.to_json(indent=2).encode())


def read_job(path: Path) -> TrainJob:
    """Read a job file; raises OSError or pydantic's ValidationError, which only a broken launch can cause."""
    return TrainJob.model_validate_json(path.read_bytes())


def read_result(work: Path) -> WorkerResult | None:
    """The workers' result, None when they left none."""
    try:
        return WorkerResult.model_validate_json((work / RESULT_FILE).read_bytes())
    except FileNotFoundError:
        return None


def write_result(work: Path, result: WorkerResult) -> None:
    """Leave the result for the train stage."""
    write_bytes(work / RESULT_FILE, result.to_json().encode())


def read_reports(work: Path) -> list[StepReport]:
    """Reports of the steps so far, in order; a line that a killed worker left unfinished is passed over."""
    try:
        lines = (work / REPORTS_FILE).read_text().splitlines()
    except FileNotFoundError:
        return []
    reports: dict[int, StepReport] = {}
    for line in lines:
        try:
            report = StepReport.model_validate_json(line)
        except ValidationError:
            continue
        reports[report.step] = report
    return [reports[step] for step in sorted(reports)]


def keep_reports(work: Path, steps: int) -> None:
    """Forget the reports of steps after `steps`, which are going to be taken again."""
    kept = [report.to_json() + "\n" for report in read_reports(work) if report.step <= steps]
    write_bytes(work / REPORTS_FILE, "".join(kept).encode())


def append_report(work: Path, report: StepReport) -> None:
    """Publish a step."""
    with (work / REPORTS_FILE).open("a") as file:
        file.write(report.to_json() + "\n")
