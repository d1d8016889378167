"""The Packed training loop: survey, steps, reports, checkpoints."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dynalign_contract.records import BatchRow
from dynalign_trainer.train.checkpoints import checkpoint_folder, drop_old_checkpoints, step_of
from dynalign_trainer.train.job import Mismatch, StepMeasures, TrainJob
from dynalign_trainer.train.loss import Normaliser, token_losses
from dynalign_trainer.train.measure import add_sums, measure_tokens, summarise_step
from dynalign_trainer.train.pace import Pace
from dynalign_trainer.train.packed.attention import IMPLEMENTATION
from dynalign_trainer.train.packed.engine import load_checkpoint, save_checkpoint
from dynalign_trainer.train.packed.layout import lay_out
from dynalign_trainer.train.packed.micro_batch import MicroBatch, build_micro_batch
from dynalign_trainer.train.packed.packing import PackPlan
from dynalign_trainer.train.packed.policy import PackedPolicy
from dynalign_trainer.train.policy.policy import base_model, needs_base
from dynalign_trainer.train.processes.ranks import gather
from dynalign_trainer.train.progress import (
    after_step,
    drop_later_reports,
    finish_checkpoint,
    mark_ready,
    report_step,
)
from dynalign_trainer.train.reference_pass import (
    RowLogprobs,
    measure_mismatch,
    merge_mismatch,
    read_surveys,
)


class PackedTrainer:
    """Takes the steps of a plan with a DeepSpeed engine around a `PackedPolicy`; every rank has one."""

    def __init__(self, job: TrainJob, rows: Sequence[BatchRow], plan: PackPlan, engine: Any) -> None:
        self.job = job
        self.rows = rows
        self.plan = plan
        self.order = job.order(len(plan.steps))
        """Step of the plan that each optimiser step takes."""
        self.engine = engine
        self.rank = int(engine.global_rank)
        self.mismatch = Mismatch()
        self.reference_seconds = 0.0
        """Wall time of the reference pass; 0 where it was read from a checkpoint."""
        self.measures: StepMeasures | None = None
        """Measures of the latest step."""
        self._surveyed: Mapping[int, RowLogprobs] = {}
        self._rejected: frozenset[int] = frozenset()

    def train(self) -> bool:
        """Take the steps that remain; False when the stage asked to stop.

        Raises StoppedError before the first step, UnfitError when no row remains or training diverges.
        """
        job = self.job
        mark_ready(job, self.rank)
        resume = job.resume
        own = self.plan.of_rank(self.rank)
        self._apply_survey(self.survey() if resume is None else read_surveys(resume, own))
        first = 0 if resume is None else step_of(resume)
        if resume is not None:
            load_checkpoint(self.engine, resume)
        drop_later_reports(job, self.rank, first)
        steps, pace = len(self.order), Pace(job.checkpoints)
        for taken in range(first, steps):
            self._take_step(taken)
            follows = after_step(job, pace, done := taken + 1)
            if follows.saves:
                self._save(done, pace)
            if follows.stops and done < steps:
                return False
        return True

    def survey(self) -> dict[int, RowLogprobs]:
        """Score this rank's rows under the starting policy and the KL reference, without gradient or dropout."""
        started = time.monotonic()
        self.engine.eval()
        start = self._score_all(self.engine)
        reference = start
        if needs_base(self.job):
            with base_model(self.job, self.engine.module.policy, IMPLEMENTATION) as model:
                reference = self._score_all(self.engine if model is None else self._packed(model))
        self.reference_seconds = time.monotonic() - started
        return {number: RowLogprobs(start[number], reference[number]) for number in start}

    def active(self, step: int) -> list[int]:
        """Rows of a step of the plan that carry loss, over all ranks."""
        return sorted(n for pack in self.plan.steps[step] for n in pack.rows if n not in self._rejected)

    def _apply_survey(self, surveyed: Mapping[int, RowLogprobs]) -> None:
        band = self.job.training.ratio_band
        self._surveyed = surveyed
        self.mismatch, self._rejected = merge_mismatch(gather(measure_mismatch(self.rows, surveyed, band)), band)

    def _take_step(self, taken: int) -> None:
        """Take one optimiser step; `taken` were taken before it."""
        started, step = time.monotonic(), self.order[taken]
        self.engine.train()
        # Dropout depends on the place in the run only, so that a resumed run draws what an undisturbed one drew.
        torch.manual_seed((self.job.seed * 1_000_003 + taken) * 1_009 + self.rank)
        normaliser = self._normaliser(step)
        losses, sums = [0.0], [torch.zeros(6, dtype=torch.float64)]
        micro_batches = self.plan.micro_batches(step)
        for micro in range(micro_batches):
            is_last = micro == micro_batches - 1
            self.engine.set_gradient_accumulation_boundary(is_last)
            loss, measured = self._pass(self._micro_batch(step, micro, normaliser))
            losses.append(loss)
            sums.append(measured)
            if is_last:
                self.measures = self._gathered_measures(taken, sum(losses), add_sums(sums))
            self.engine.step()
        if self.rank == 0 and self.measures is not None:
            norm = self.engine.get_global_grad_norm()
            report_step(
                self.job,
                self.measures,
                [self.rows[n] for n in self.active(step)],
                step=taken + 1,
                steps=len(self.order),
                grad_norm=None if norm is None else float(norm),
                seconds=time.monotonic() - started,
            )

    def _pass(self, batch: MicroBatch) -> tuple[float, Tensor]:
        """One forward and backward pass: this rank's share of the step's loss, and its sums."""
        logps, entropies = self.engine(batch.layout)
        if batch.is_blank:
            loss = 0.0 * logps.sum()
            logps, entropies = logps[:0], entropies[:0]
        else:
            loss = (token_losses(logps, batch.tokens, self.job.training) * batch.weights).sum()
        # DeepSpeed averages gradients over the ranks; the weights have divided by all of them already.
        self.engine.backward(loss * self.plan.ranks)
        return loss.item(), measure_tokens(logps.detach(), entropies, batch.tokens, self.job.training)

    def _micro_batch(self, step: int, micro: int, normaliser: Normaliser) -> MicroBatch:
        numbers = [n for n in self.plan.pack(step, micro, self.rank).rows if n not in self._rejected]
        return build_micro_batch(
            numbers,
            self.rows,
            self._surveyed,
            normaliser=normaliser,
            aggregation=self.job.training.aggregation,
            device=self.engine.device,
        )

    def _normaliser(self, step: int) -> Normaliser:
        lengths = [len(self.rows[n]["completion_ids"]) for n in self.active(step)]
        return Normaliser(sum(lengths), len(lengths), self.job.rows_per_full_step * self.job.max_tokens)

    def _gathered_measures(self, taken: int, loss: float, sums: Tensor) -> StepMeasures:
        ranks = gather((loss, sums))
        return summarise_step(add_sums([s for _, s in ranks]), sum(part for part, _ in ranks), taken)

    def _packed(self, model: Any) -> PackedPolicy:
        return PackedPolicy(model.to(self.engine.device), self.job.temperature)

    def _score_all(self, module: Any) -> dict[int, list[float]]:
        """Log-probabilities of this rank's rows by number, pack by pack."""
        scores: dict[int, list[float]] = {}
        for step in range(len(self.plan.steps)):
            for micro in range(self.plan.micro_batches(step)):
                numbers = self.plan.pack(step, micro, self.rank).rows
                scores |= zip(numbers, self._score(module, numbers), strict=True)
        return scores

    def _score(self, module: Any, numbers: Sequence[int]) -> list[list[float]]:
        """Log-probabilities of the rows' completion tokens; a collective call where weights are spread over ranks."""
        rows = [self.rows[n] for n in numbers]
        with torch.no_grad():
            logps, _ = module(lay_out(rows))
        if not rows:
            return []
        return [part.tolist() for part in logps.cpu().split([len(row["completion_ids"]) for row in rows])]

    def _save(self, done: int, pace: Pace) -> None:
        folder = checkpoint_folder(self.job.work, done)
        pace.begin_saving()
        written = save_checkpoint(self.engine, folder)
        finish_checkpoint(folder, self.job, self._surveyed, self.rank, written)
        pace.end_saving()
        if self.rank == 0:
            drop_old_checkpoints(self.job.work)
