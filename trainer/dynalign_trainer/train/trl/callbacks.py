"""What happens around the trainer's steps: survey, reports, stopping, sealing of checkpoints."""

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dynalign_trainer.train.deepspeed.state import take_written
from dynalign_trainer.train.pace import Pace
from dynalign_trainer.train.policy.policy import restore_fp32
from dynalign_trainer.train.progress import (
    after_step,
    drop_later_reports,
    finish_checkpoint,
    mark_ready,
    report_step,
)
from dynalign_trainer.train.reference_pass import read_surveys
from dynalign_trainer.train.trl.trainer import ReplayTrainer


class ReplayCallback(TrainerCallback):  # type: ignore[misc] # transformers is not followed by mypy
    """Binds a ReplayTrainer to its job's folder."""

    def __init__(self, trainer: ReplayTrainer) -> None:
        self._trainer = trainer
        self._job = trainer.recorded.job
        self._clock = 0.0
        self._pace = Pace(self._job.checkpoints)

    def on_train_begin(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Survey the rows, or read the survey of the checkpoint that training goes on from."""
        trainer, resume = self._trainer, self._job.resume
        if resume is None:
            restore_fp32(self._job, trainer.accelerator.unwrap_model(trainer.model))
        mark_ready(self._job, trainer.rank)
        schedule = trainer.recorded.schedule
        own = {row for step in range(schedule.steps) for row in schedule.of_rank(trainer.rank, step)}
        surveyed = trainer.survey() if resume is None else read_surveys(resume, own)
        trainer.apply_survey(surveyed)
        drop_later_reports(self._job, trainer.rank, state.global_step)
        self._pace = Pace(self._job.checkpoints)
        self._clock = time.monotonic()

    def on_step_end(
        self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Save when a checkpoint is due, and end when the stage was asked to stop, on all ranks at the same step."""
        follows = after_step(self._job, self._pace, state.global_step)
        control.should_save = follows.saves
        if follows.saves:
            self._pace.begin_saving()
        if follows.stops:
            control.should_training_stop = True
        return control

    def on_log(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        """Report the step that has just ended."""
        trainer, measures, order = self._trainer, self._trainer.measures, self._trainer.recorded.order
        if "loss" not in logs or measures is None:
            return
        now, grad_norm = time.monotonic(), logs.get("grad_norm")
        if trainer.rank == 0:
            report_step(
                self._job,
                measures,
                [trainer.recorded.rows[n] for n in trainer.active(order[state.global_step - 1])],
                step=state.global_step,
                steps=len(order),
                grad_norm=None if grad_norm is None else float(grad_norm),
                seconds=now - self._clock,
            )
        self._clock = now

    def on_save(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Add the survey to the checkpoint and seal it once every rank has written its share."""
        folder = self._job.work / f"checkpoint-{state.global_step}"
        written = take_written(self._trainer.accelerator.deepspeed_engine_wrapped.engine)
        finish_checkpoint(folder, self._job, self._trainer.surveyed, self._trainer.rank, written)
        self._pace.end_saving()
