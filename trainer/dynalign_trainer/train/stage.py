"""train: build the batch, train on it with GRPO under DeepSpeed, write the next policy.

The computation is described in docs/method.md, "GRPO on recorded groups".
This process stays light: it starts torchrun even for one process (where that cannot be forked), builds the batch while
the workers load the model, relays progress, asks the workers to stop on SIGTERM and turns their end into the stage's.
They talk through files of the checkpoints folder, because torchrun answers a signal by killing its workers in the
middle of a step.
"""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from dynalign_contract.config import TrainParams
from dynalign_contract.errors import (
    BadConfigError,
    BadInputError,
    StageError,
    TerminatedError,
    TrainingFailedError,
    UnfitError,
)
from dynalign_contract.files import remove, write_bytes
from dynalign_contract.inputs import Input
from dynalign_contract.layout import BATCH_FILE
from dynalign_contract.manifest import Manifest, describe_file, write_manifest
from dynalign_contract.metrics import TrainMetrics
from dynalign_contract.phases import Phase
from dynalign_contract.pod_paths import Variable
from dynalign_contract.records import BATCH, JUDGEMENT, SAMPLED, read_parts, write_rows
from dynalign_contract.result import Metric
from dynalign_contract.stages import Stage
from dynalign_trainer.runtime.context import Gang, StageContext, StageOutput
from dynalign_trainer.runtime.machine import count_cores, count_gpus
from dynalign_trainer.train.batch import Batch, build_batch
from dynalign_trainer.train.checkpoints import claim_folder, find_checkpoint, fit_checkpoint
from dynalign_trainer.train.job import (
    BEGUN_FILE,
    JOB_FILE,
    RESULT_FILE,
    STOP_FILE,
    TrainJob,
    WorkerOutcome,
    WorkerResult,
    read_reports,
    read_result,
    write_job,
)
from dynalign_trainer.train.policy.policy import check_start, policy_files
from dynalign_trainer.train.processes.forked import may_fork
from dynalign_trainer.train.processes.gang import telling_of_waits
from dynalign_trainer.train.processes.launch import (
    Processes,
    count_processes,
    rendezvous_of,
    run_alone,
    run_forked,
    run_workers,
    torchrun_command,
    worker_environment,
)
from dynalign_trainer.train.processes.links import explain_slow_links
from dynalign_trainer.train.summary import count_useful_time, publish_report, summarise

log = logging.getLogger("dynalign.train")

_REFUSALS: Final[dict[str, type[StageError]]] = {e.__name__: e for e in (BadConfigError, BadInputError, UnfitError)}


def run(context: StageContext[TrainParams]) -> StageOutput[TrainParams]:
    """Train the policy on its judged rollouts; writes an adapter as PEFT does, or all weights.

    The batch is built, and the weights are verified, while the workers load the model. An iteration in which nothing
    can be learned (no group with spread) leaves the policy as it was, with a warning and `trained_steps` 0. Raises
    BadInputError, BadConfigError, CorruptArtifactError, UnfitError, TrainingFailedError or TerminatedError.
    """
    if context.gang.rank > 0:
        return _assist(context)
    training = context.params.training
    start = context.policy_folder(context.params.policy)
    if start is not None:
        check_start(start, training)
    gpus = count_gpus()
    processes = count_processes(training, gpus=gpus, cores=count_cores())
    job = _prepare(context, start, processes)
    context.check_stop()
    batches: list[Batch] = []
    try:
        result = _train(context, job.work, processes, gpus, first=lambda: batches.append(_hand_over(context, job)))
    except StageError:
        context.await_weights()  # weights that are not as they were made are the better reason
        raise
    if result is None:
        raise TrainingFailedError("the training processes ended well but left no result; the next attempt goes on")
    for link in result.links:
        log.info("nodes %d and %d exchange %.2f GB/s in each direction", *link.nodes, link.gigabytes_per_second)
    if (slow := explain_slow_links(result.links)) is not None:
        context.warn(slow)
    reports = read_reports(job.work)
    metrics = summarise(batches[0], result, reports)
    count_useful_time(context.telemetry.useful, result, reports, job.resume)
    shutil.rmtree(job.work)
    files = dict.fromkeys(policy_files(context.folder, training.method), 0)
    return StageOutput(files=files, metrics=metrics, training=result.training)


def _assist(context: StageContext[TrainParams]) -> StageOutput[TrainParams]:
    """Give this node's processes to the training that rank 0 prepares and reports; writes nothing of its own.

    The processes meet those of rank 0 before they read its job file, so there is nothing to wait for here.
    """
    gpus = count_gpus()
    processes = count_processes(context.params.training, gpus=gpus, cores=count_cores())
    _train(context, context.layout.checkpoints(context.iteration).resolve(), processes, gpus)
    return StageOutput(files={})


def _hand_over(context: StageContext[TrainParams], job: TrainJob) -> Batch:
    """Build the batch for the workers, who load the model meanwhile. Raises BadInputError."""
    batch = _build(context)
    if not batch.rows:
        context.warn(
            f"no group of this iteration teaches anything ({batch.dropped_groups} of {batch.groups} dropped: equal "
            f"rewards, differences within the judge's noise ({batch.noisy_groups or 0}), or every candidate masked); "
            "the policy stays as it is"
        )
    context.await_weights()
    context.check_stop()
    log.info("%d rows in %d steps, epochs %d", len(batch.rows), batch.steps, batch.epochs)
    write_job(job.model_copy(update={"group_size": batch.group_size}))
    return batch


def _build(context: StageContext[TrainParams]) -> Batch:
    """Build the batch and leave it as an artifact of its own beside the policy."""
    started = time.monotonic()
    batch = build_batch(
        read_parts(context.input_shards(Input.ROLLOUTS), SAMPLED),
        read_parts(context.input_shards(Input.JUDGEMENTS), JUDGEMENT),
        context.params.training,
        policy=context.params.policy.version,
        seed=context.seed("batch"),
    )
    folder = context.layout.batch(context.iteration)
    remove(folder)
    write_rows(folder / BATCH_FILE, batch.rows, BATCH)
    metrics = {
        "steps": float(batch.steps * batch.epochs),
        TrainMetrics.loss_tokens.name: float(sum(batch.loss_tokens) * batch.epochs),
        TrainMetrics.dropped_groups_share.name: batch.dropped_share,
        TrainMetrics.noisy_groups_share.name: batch.noisy_share,
        TrainMetrics.masked_share.name: batch.masked_share,
    }
    write_manifest(
        folder,
        Manifest(
            stage=Stage.TRAIN,
            iteration=context.iteration,
            config_digest=context.config.digest,
            files=(describe_file(folder, BATCH_FILE, len(batch.rows)),),
            metrics=tuple(Metric(name=name, value=value) for name, value in metrics.items()),
            seconds=round(time.monotonic() - started, 3),
        ),
    )
    return batch


def _prepare(context: StageContext[TrainParams], start: Path | None, processes: Processes) -> TrainJob:
    """Write the job file into the checkpoints folder, going on from a checkpoint of this very job if there is one."""
    work = context.layout.checkpoints(context.iteration).resolve()
    claim_folder(work, context.config.progress_digest)
    for name in (BEGUN_FILE, STOP_FILE, RESULT_FILE):
        (work / name).unlink(missing_ok=True)
    resume = find_checkpoint(work)
    if resume is not None:
        log.info("going on from %s", resume)
    job = TrainJob(
        model=context.input(Input.MODEL).resolve(),
        start=None if start is None else start.resolve(),
        batch=(context.layout.batch(context.iteration) / BATCH_FILE).resolve(),
        work=work,
        output=context.folder.resolve(),
        training=context.params.training,
        checkpoints=context.params.checkpoints,
        dtype=context.config.engine.dtype,
        temperature=context.params.temperature,
        max_tokens=context.params.max_tokens,
        iteration=context.iteration,
        config_digest=context.config.digest,
        seed=context.seed("train"),
        resume=resume,
    )
    if resume is not None:
        fit_checkpoint(resume, job, processes.count * context.gang.nodes)
    write_job(job)
    log.info(
        "DeepSpeed ZeRO-%d: nodes %d, processes a node %d",
        job.training.zero_stage,
        context.gang.nodes,
        processes.count,
    )
    return job


def _ask_to_stop(file: Path) -> None:
    """Leave the stop file, once, with the time of the SIGKILL that follows the SIGTERM; empty where nobody says it."""
    if not file.exists():
        grace = os.environ.get(Variable.GRACE_SECONDS, "")
        write_bytes(file, str(time.time() + float(grace)).encode() if grace else b"")


def _work(job: Path, threads: int) -> None:
    """In a forked process: be the only worker."""
    import torch

    from dynalign_trainer.train.processes.worker import work

    torch.set_num_threads(threads)
    work(job)


def _run_workers(
    gang: Gang,
    job: Path,
    processes: Processes,
    gpus: int,
    *,
    watch: Callable[[], None],
    first: Callable[[], None],
) -> None:
    """Run this node's workers by torchrun, or without it the only one of a CPU, as a fork where that spares imports."""
    rendezvous = rendezvous_of(gang)
    environment = worker_environment(processes, rendezvous, gpus=gpus)
    is_alone = processes.count == 1 and gang.nodes == 1 and not gpus
    if is_alone and may_fork():
        run_forked(partial(_work, job, processes.threads), environment, watch=watch, first=first)
    elif is_alone:
        run_alone(job, environment, watch=watch, first=first)
    else:
        run_workers(torchrun_command(processes, rendezvous, job), environment, watch=watch, first=first)


def _train(
    context: StageContext[TrainParams],
    work: Path,
    processes: Processes,
    gpus: int,
    *,
    first: Callable[[], None] = lambda: None,
) -> WorkerResult | None:
    """Run this node's workers to their end, `first` once they have started; None when they left no result, which only
    rank 0 minds.
    """

    def watch() -> None:
        begun = work / BEGUN_FILE
        if context.stopping.is_set():
            if not begun.exists():
                context.check_stop()
            with contextlib.suppress(FileNotFoundError):  # rank 0 has finished and tidied up
                _ask_to_stop(work / STOP_FILE)
        if context.gang.rank > 0:
            return
        if begun.exists():
            context.telemetry.begin(begun.stat().st_mtime)
            context.telemetry.phases.once(Phase.PREPARATION)
        reports = read_reports(work)
        if reports:
            publish_report(context.telemetry, reports[-1])

    with telling_of_waits(context.gang, context.telemetry):
        _run_workers(context.gang, work / JOB_FILE, processes, gpus, watch=watch, first=first)
    context.telemetry.phases.end(Phase.WORK)
    result = read_result(work)
    if result is None or result.outcome is WorkerOutcome.TRAINED:
        return result
    if result.outcome is WorkerOutcome.STOPPED:
        context.check_stop()
        if context.gang.nodes > 1:
            raise TerminatedError("another node of this training was stopped; the next attempt goes on from here")
        raise TrainingFailedError("the training processes stopped without having been asked to")
    reason, message = (result.error.reason, result.error.message) if result.error else ("", "no reason given")
    raise _REFUSALS.get(reason, TrainingFailedError)(message)
