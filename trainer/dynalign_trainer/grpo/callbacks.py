"""What happens around the trainer's steps: survey, reports, stopping, sealing of checkpoints."""

import time
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dynalign_trainer.grpo.checkpoints import seal_checkpoint
from dynalign_trainer.grpo.job import BEGUN_FILE, STOP_FILE, StepReport, append_report, keep_reports
from dynalign_trainer.grpo.replay import ReplayTrainer
from dynalign_trainer.grpo.survey import read_survey, survey_file, write_survey


class StoppedError(Exception):
    """The stage asked to stop before the first step."""


class ReplayCallback(TrainerCallback):  # type: ignore[misc] # transformers is not followed by mypy
    """Binds a ReplayTrainer to its job's folder."""

    def __init__(self, trainer: ReplayTrainer) -> None:
        self._trainer = trainer
        self._job = trainer.recorded.job
        self._clock = 0.0

    def on_train_begin(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Survey the rows, or read the survey of the checkpoint that training goes on from."""
        trainer, resume = self._trainer, self._job.resume
        if trainer.rank == 0:
            (self._job.work / BEGUN_FILE).touch()
        surveyed = trainer.survey() if resume is None else read_survey(survey_file(resume, trainer.rank))
        trainer.apply_survey(surveyed)
        if trainer.rank == 0:
            keep_reports(self._job.work, state.global_step)
        if self._asked_to_stop():
            raise StoppedError
        self._clock = time.monotonic()

    def on_step_end(
        self, _args: TrainingArguments, _state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Save and end when the stage was asked to stop, on all ranks at the same step."""
        if self._asked_to_stop():
            control.should_save = True
            control.should_training_stop = True
        return control

    def on_log(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        """Report the step that has just ended."""
        trainer, measures = self._trainer, self._trainer.measures
        if "loss" not in logs or measures is None:
            return
        now = time.monotonic()
        if trainer.rank == 0:
            append_report(self._job.work, self._report(state.global_step, now - self._clock, logs.get("grad_norm")))
        self._clock = now

    def on_save(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Add the survey to the checkpoint and seal it once every rank has written its share."""
        trainer = self._trainer
        folder = self._job.work / f"checkpoint-{state.global_step}"
        write_survey(survey_file(folder, trainer.rank), trainer.surveyed)
        trainer.accelerator.wait_for_everyone()
        if trainer.rank == 0:
            seal_checkpoint(folder, self._job)
        trainer.accelerator.wait_for_everyone()

    def _asked_to_stop(self) -> bool:
        return any(gather_object([(self._job.work / STOP_FILE).exists()]))

    def _report(self, step: int, seconds: float, grad_norm: float | None) -> StepReport:
        trainer, measures = self._trainer, self._trainer.measures
        if measures is None:
            raise RuntimeError("a step was reported before it was measured")
        rows = [trainer.recorded.rows[n] for n in trainer.active(step - 1)]
        return StepReport(
            step=step,
            steps=trainer.recorded.schedule.steps,
            loss=measures.loss,
            kl=measures.kl,
            entropy=measures.entropy,
            ratio_mean=measures.ratio_mean,
            ratio_max=measures.ratio_max,
            clip_share=measures.clip_share,
            grad_norm=None if grad_norm is None else float(grad_norm),
            tokens=sum(len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows),
            seconds=seconds,
        )
