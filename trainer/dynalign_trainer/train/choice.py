"""What `Auto` stands for in a training job, before its model is loaded."""

from dynalign_contract.settings import TrainingMethod
from dynalign_contract.training_choice import TrainingChoice
from dynalign_trainer.models.files import read_tensor_files
from dynalign_trainer.models.training_choice import apply_choice, choose_training, is_chosen, named_choice
from dynalign_trainer.preflight.modules import build_model
from dynalign_trainer.train.job import TrainJob
from dynalign_trainer.train.policy.lora import read_adapter


def settle(job: TrainJob) -> tuple[TrainJob, TrainingChoice]:
    """The job with nothing left to choose, and the choice, which is the same in every process.

    An adapter that training continues from keeps its modules. Raises BadConfigError as fetch does.
    """
    training = job.training
    if is_chosen(training):
        return job, named_choice(training)
    choice = choose_training(build_model(job.model), frozenset(read_tensor_files(job.model)), training)
    if job.start is not None and training.method is TrainingMethod.LORA:
        choice = _with_modules_of(choice, read_adapter(job.start).target_modules)
    return job.model_copy(update={"training": apply_choice(training, choice)}), choice


def _with_modules_of(choice: TrainingChoice, modules: tuple[str, ...]) -> TrainingChoice:
    if set(modules) == set(choice.target_modules):
        return choice
    reason = "those of the adapter that training continues from"
    return choice.model_copy(update={"target_modules": tuple(sorted(modules)), "target_reason": reason})
