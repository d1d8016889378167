"""TRL's GRPOTrainer on recorded groups: its loss and its training loop, our rows.

This is the only file that touches private members of TRL, checked against `CHECKED_TRL`: `_prepare_inputs` (TRL
generates and scores there; we hand over recorded rows), `_compute_loss` and its inputs,
`_get_per_token_logps_and_entropies`, and the attribute `beta`. When they change,
`tests/integration/test_private_members.py` fails.

TRL's own batching would drop an incomplete last batch and shuffle rows into micro-batches; here every row has a fixed
place in a `Schedule`, which is looked up by the number of the micro-batch and checked against the optimiser step.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from trl import GRPOTrainer

from dynalign_contract.records import BatchRow
from dynalign_contract.settings import LossAggregation
from dynalign_trainer.train.deepspeed.state import use_plain_checkpoints
from dynalign_trainer.train.job import Mismatch, StepMeasures, TrainJob
from dynalign_trainer.train.loss import LossTokens
from dynalign_trainer.train.measure import add_sums, measure_tokens, summarise_step
from dynalign_trainer.train.policy.policy import base_model, needs_base
from dynalign_trainer.train.processes.ranks import gather
from dynalign_trainer.train.reference_pass import RowLogprobs, measure_mismatch, merge_mismatch
from dynalign_trainer.train.trl.collate import TrainingSequence, collate
from dynalign_trainer.train.trl.schedule import Schedule

CHECKED_TRL: Final = "1.16.0"


@dataclass(frozen=True)
class Recorded:
    """What is replayed."""

    job: TrainJob
    rows: Sequence[BatchRow]
    schedule: Schedule

    @property
    def order(self) -> tuple[int, ...]:
        """Step of the schedule that each optimiser step takes."""
        return self.job.order(self.schedule.steps)


class ReplayTrainer(GRPOTrainer):  # type: ignore[misc] # TRL has no types
    """Consumes every scheduled row exactly once an epoch; raises RuntimeError as soon as that is not so.

    Call `apply_survey` before the first step.
    """

    def __init__(self, recorded: Recorded, **trainer: Any) -> None:
        super().__init__(reward_funcs=_recorded_rewards, **trainer)
        # With args.beta > 0, TRL would copy a loaded adapter as its KL reference; ours is recorded by the survey.
        self.beta = recorded.job.training.kl.coefficient
        self.recorded = recorded
        self.consumed: list[int] = []
        self.mismatch = Mismatch()
        self.reference_seconds = 0.0
        """Wall time of the reference pass; 0 where it was read from a checkpoint."""
        self.surveyed: Mapping[int, RowLogprobs] = {}
        self.measures: StepMeasures | None = None
        self._rejected: frozenset[int] = frozenset()
        self._sums = torch.zeros(0)
        self._loss = 0.0
        self._scored: tuple[Tensor, Tensor] | None = None

    @property
    def rank(self) -> int:
        """This process."""
        return int(self.accelerator.process_index)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Numbers of micro-batches in order, the same on every rank; the schedule says which rows they hold."""
        return DataLoader(self.train_dataset, batch_size=1, shuffle=False, collate_fn=_only)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Called by the trainer once DeepSpeed has started, and before a checkpoint is loaded."""
        use_plain_checkpoints(self.accelerator.deepspeed_engine_wrapped.engine)
        return super().create_scheduler(num_training_steps, optimizer)

    def survey(self) -> dict[int, RowLogprobs]:
        """Score this rank's rows under the starting policy and the KL reference, without gradient or dropout."""
        job, started = self.recorded.job, time.monotonic()
        was_training = self.model.training
        self.model.eval()
        start = self._score_all(self._score)
        reference = start
        if needs_base(job):
            with base_model(job, self.accelerator.unwrap_model(self.model)) as base:
                reference = self._score_all(self._score if base is None else partial(self._score_plainly, base))
        self.model.train(was_training)
        self.reference_seconds = time.monotonic() - started
        return {number: RowLogprobs(start[number], reference[number]) for number in start}

    def apply_survey(self, surveyed: Mapping[int, RowLogprobs]) -> None:
        """Reject rows outside the ratio band, on all ranks; raises UnfitError when none remains."""
        band = self.recorded.job.training.ratio_band
        self.surveyed = surveyed
        self.mismatch, self._rejected = merge_mismatch(
            gather(measure_mismatch(self.recorded.rows, surveyed, band)), band
        )

    def active(self, step: int) -> list[int]:
        """Rows of a step of the schedule that carry loss, over all ranks."""
        return [n for n in self.recorded.schedule.slots[step] if n is not None and n not in self._rejected]

    def _prepare_inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        schedule, micro_batch = self.recorded.schedule, batch["micro_batch"]
        taken, micro = divmod(micro_batch, schedule.micro_batches)
        if taken != self.state.global_step:
            raise RuntimeError(f"micro-batch {micro_batch} belongs to step {taken}, not to {self.state.global_step}")
        step = self.recorded.order[taken]
        numbers = schedule.rows(step, micro, self.rank)
        self.consumed += [n for n in numbers if n is not None]
        kept = [None if n in self._rejected else n for n in numbers]
        inputs: dict[str, Any] = self._to_device(collate([self._sequence(n) for n in kept]))
        tokens = sum(len(self.recorded.rows[n]["completion_ids"]) for n in self.active(step))
        inputs["num_items_in_batch"] = torch.tensor(float(tokens), device=self.accelerator.device)
        return inputs | {"step": step, "micro": micro}

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        step, micro = inputs.pop("step"), inputs.pop("micro")
        loss: Tensor = super()._compute_loss(model, inputs) * self._rescale(step)
        if self._scored is None:
            raise RuntimeError("TRL computed a loss without the log-probabilities that dynalign listens to")
        sums = self._measure(*self._scored, inputs)
        first = micro == 0
        self._sums = sums if first else add_sums([self._sums, sums])
        self._loss = loss.item() + (0.0 if first else self._loss)
        if micro == self.recorded.schedule.micro_batches - 1:
            self._finish_step()
        return loss

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None, Any]:
        logps, entropies, auxiliary = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if entropies is not None:
            self._scored = logps.detach(), entropies.detach()
        return logps, entropies, auxiliary

    def _score_all(self, score: Callable[[Mapping[str, Tensor]], Tensor]) -> dict[int, list[float]]:
        """Log-probabilities of this rank's rows by number, micro-batch by micro-batch."""
        schedule = self.recorded.schedule
        scores: dict[int, list[float]] = {}
        for step in range(schedule.steps):
            for micro in range(schedule.micro_batches):
                numbers = schedule.rows(step, micro, self.rank)
                inputs = self._to_device(collate([self._sequence(number) for number in numbers]))
                for number, found in zip(numbers, score(inputs), strict=True):
                    if number is not None:
                        scores[number] = found[: len(self.recorded.rows[number]["completion_ids"])].tolist()
        return scores

    def _score(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Log-probabilities of the completion tokens, shape (B, T), on the CPU."""
        ids, mask, width = _whole_sequences(inputs)
        with torch.no_grad():
            logps, _, _ = super()._get_per_token_logps_and_entropies(self.model, ids, mask, width)
        scores: Tensor = logps.float().cpu()
        return scores

    def _score_plainly(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """Score with a model that TRL has not prepared."""
        ids, mask, width = _whole_sequences(inputs)
        with torch.no_grad():
            logits = model.to(ids.device)(input_ids=ids, attention_mask=mask).logits[:, -width - 1 : -1].float()
        logps = torch.log_softmax(logits / self.recorded.job.temperature, dim=-1)
        return logps.gather(2, ids[:, -width:, None])[..., 0].cpu()

    def _rescale(self, step: int) -> float:
        """TRL divides by the slots of a step, blanks included; `SequenceMean` wants the sequences that carry loss,
        `Constant` the number of sequences of a full step (times `max_tokens`), whatever this step holds.
        """
        slots = len(self.recorded.schedule.slots[step])
        match self.recorded.job.training.aggregation:
            case LossAggregation.TOKEN_MEAN:
                return 1.0
            case LossAggregation.SEQUENCE_MEAN | LossAggregation.SEQUENCE_RATIO:
                return slots / max(1, len(self.active(step)))
            case LossAggregation.CONSTANT:
                return slots / self.recorded.job.rows_per_full_step

    def _finish_step(self) -> None:
        ranks = gather((self._loss, self._sums))
        loss = sum(loss for loss, _ in ranks) / len(ranks)
        self.measures = summarise_step(add_sums([sums for _, sums in ranks]), loss, self.state.global_step)

    def _measure(self, logps: Tensor, entropies: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """TRL's tokens (B, T) in one row, without padding."""
        mask = inputs["completion_mask"].bool()
        sequences = mask.nonzero()[:, 0]
        tokens = LossTokens(
            sampler_logprobs=inputs["old_per_token_logps"][mask],
            ref_logprobs=inputs["ref_per_token_logps"][mask],
            advantages=inputs["advantages"][sequences],
            sequence_ids=sequences,
        )
        return measure_tokens(logps[mask], entropies[mask], tokens, self.recorded.job.training)

    def _sequence(self, number: int | None) -> TrainingSequence | None:
        if number is None:
            return None
        row, seen = self.recorded.rows[number], self.surveyed.get(number)
        return TrainingSequence(
            prompt_ids=row["prompt_ids"],
            completion_ids=row["completion_ids"],
            logprobs=row["logprobs"],
            advantage=row["advantage"],
            reference=None if seen is None else seen.reference,
        )

    def _to_device(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.accelerator.device) for name, tensor in tensors.items()}


def _whole_sequences(inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, int]:
    """Token ids and mask of prompts and completions, shapes (B, P + T), and T."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    return ids, mask, inputs["completion_ids"].size(1)


def _recorded_rewards(**_: Any) -> list[float]:
    """TRL wants a source of rewards; the recorded ones became advantages when the batch was built."""
    raise RuntimeError("TRL asked for rewards, although the replay hands it finished advantages")


def _only(items: Sequence[dict[str, int]]) -> dict[str, int]:
    """The collator of a loader whose batches hold one element."""
    return items[0]
