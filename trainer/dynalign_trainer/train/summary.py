"""Step reports as the stage's telemetry and metrics."""

from collections.abc import Callable, Sequence
from pathlib import Path

from dynalign_contract.config import TrainParams
from dynalign_contract.metrics import MetricValues, TrainMetrics
from dynalign_trainer.runtime.telemetry import Telemetry
from dynalign_trainer.runtime.useful_time import UsefulTime
from dynalign_trainer.train.batch import Batch
from dynalign_trainer.train.checkpoints import step_of
from dynalign_trainer.train.job import StepReport, WorkerResult


def publish_report(telemetry: Telemetry, report: StepReport) -> None:
    """Make the latest step visible at /metrics."""
    telemetry.progress(report.step, report.steps)
    telemetry.rate(report.tokens / report.seconds if report.seconds > 0 else 0.0)
    telemetry.metric(TrainMetrics.loss, report.loss)
    telemetry.metric(TrainMetrics.kl, report.kl)
    telemetry.metric(TrainMetrics.ratio_mean, report.ratio_mean)
    telemetry.metric(TrainMetrics.clip_share, report.clip_share)
    if report.grad_norm is not None:
        telemetry.metric(TrainMetrics.grad_norm, report.grad_norm)


def count_useful_time(
    useful: UsefulTime, result: WorkerResult, reports: Sequence[StepReport], resume: Path | None
) -> None:
    """Count the reference pass and the steps of this attempt, and the steps before the checkpoint it went on from."""
    first = 0 if resume is None else step_of(resume)
    useful.add(result.reference_seconds + sum(report.seconds for report in reports if report.step > first))
    useful.preserved_seconds += sum(report.seconds for report in reports if report.step <= first)


def summarise(batch: Batch, result: WorkerResult, reports: Sequence[StepReport]) -> MetricValues[TrainParams]:
    """The stage's metrics, most important first.

    loss, kl, clip_share, grad_norm and entropy are means over optimiser steps; ratio_mean, ratio_max and
    logprob_difference compare sampler and trainer before the first step, over every row.
    """
    mismatch = result.mismatch
    seconds = sum(report.seconds for report in reports)
    tokens = sum(report.tokens for report in reports)
    return {
        TrainMetrics.trained_steps: float(len(reports)),
        TrainMetrics.loss: _mean(reports, lambda r: r.loss),
        TrainMetrics.kl: _mean(reports, lambda r: r.kl),
        TrainMetrics.ratio_mean: mismatch.ratio_mean,
        TrainMetrics.ratio_max: mismatch.ratio_max,
        TrainMetrics.logprob_difference: mismatch.logprob_difference,
        TrainMetrics.clip_share: _mean(reports, lambda r: r.clip_share),
        TrainMetrics.grad_norm: _mean(reports, lambda r: r.grad_norm),
        TrainMetrics.norm_change: result.norm_change,
        TrainMetrics.rejected_share: mismatch.rejected / mismatch.rows if mismatch.rows else None,
        TrainMetrics.dropped_groups_share: batch.dropped_share,
        TrainMetrics.noisy_groups_share: batch.noisy_share,
        TrainMetrics.masked_share: batch.masked_share,
        TrainMetrics.loss_tokens: float(sum(batch.loss_tokens) * batch.epochs),
        TrainMetrics.tokens_per_second: tokens / seconds if seconds > 0 else None,
        TrainMetrics.mfu: utilisation(reports, result.peak_flops),
        TrainMetrics.entropy: _mean(reports, lambda r: r.entropy),
        TrainMetrics.peak_memory: float(result.peak_memory_bytes) or None,
        TrainMetrics.slowest_link: min((link.gigabytes_per_second for link in result.links), default=None),
    }


def utilisation(reports: Sequence[StepReport], peak: float | None) -> float | None:
    """Model FLOPs utilisation of the steps (docs/goodput.md, "MFU of training"); None where it is not known.

    `peak`: operations a second of all GPUs together.
    """
    flops = [report.flops for report in reports if report.flops is not None]
    seconds = sum(report.seconds for report in reports)
    if not peak or not seconds or len(flops) < len(reports):
        return None
    return sum(flops) / seconds / peak


def _mean(reports: Sequence[StepReport], value: Callable[[StepReport], float | None]) -> float | None:
    found = [v for v in map(value, reports) if v is not None]
    return sum(found) / len(found) if found else None
