"""From step reports to the stage's telemetry and metrics."""

from collections.abc import Callable, Sequence

from dynalign_trainer.runtime.telemetry import Telemetry
from dynalign_trainer.train.batch import Batch
from dynalign_trainer.train.job import StepReport, WorkerResult


def publish_report(telemetry: Telemetry, report: StepReport) -> None:
    """Make the latest step visible at /metrics."""
    telemetry.progress(report.step, report.steps)
    telemetry.rate(report.tokens / report.seconds if report.seconds > 0 else 0.0)
    telemetry.metric("loss", report.loss)
    telemetry.metric("kl", report.kl)
    telemetry.metric("ratio_mean", report.ratio_mean)
    telemetry.metric("clip_share", report.clip_share)
    if report.grad_norm is not None:
        telemetry.metric("grad_norm", report.grad_norm)


def summarise(batch: Batch, result: WorkerResult, reports: Sequence[StepReport]) -> dict[str, float | None]:
    """The stage's metrics, most important first.

    loss, kl, clip_share, grad_norm and entropy are means over optimiser steps; ratio_mean, ratio_max and
    logprob_difference compare sampler and trainer before the first step, over every row.
    """
    mismatch = result.mismatch
    seconds = sum(report.seconds for report in reports)
    tokens = sum(report.tokens for report in reports)
    return {
        "trained_steps": float(len(reports)),
        "loss": _mean(reports, lambda r: r.loss),
        "kl": _mean(reports, lambda r: r.kl),
        "ratio_mean": mismatch.ratio_mean,
        "ratio_max": mismatch.ratio_max,
        "logprob_difference": mismatch.logprob_difference,
        "clip_share": _mean(reports, lambda r: r.clip_share),
        "grad_norm": _mean(reports, lambda r: r.grad_norm),
        "norm_change": result.norm_change,
        "rejected_share": mismatch.rejected / mismatch.rows if mismatch.rows else None,
        "dropped_groups_share": batch.dropped_share,
        "noisy_groups_share": batch.noisy_share,
        "masked_share": batch.masked_share,
        "loss_tokens": float(sum(batch.loss_tokens)),
        "tokens_per_second": tokens / seconds if seconds > 0 else None,
        "entropy": _mean(reports, lambda r: r.entropy),
    }


def _mean(reports: Sequence[StepReport], value: Callable[[StepReport], float | None]) -> float | None:
    found = [v for v in map(value, reports) if v is not None]
    return sum(found) / len(found) if found else None
