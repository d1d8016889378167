"""Event files for TensorBoard. They are written anew with every report, so that nothing is there twice."""

import shutil
from pathlib import Path

from dynalign_contract.errors import BadConfigError
from dynalign_contract.layout import TENSORBOARD_FOLDER
from dynalign_trainer.report.numbers import IterationNumbers


def write_events(root: Path, scratch: Path, iterations: list[IterationNumbers]) -> None:
    """Replace the folder `tensorboard` of the run's folder by one with these numbers, a step an iteration.

    `scratch` is a folder on the same volume. Raises BadConfigError where the package is not installed.
    """
    try:
        from tensorboard.summary import Writer  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise BadConfigError(
            f"spec.tracking.tensorboard needs the package tensorboard ({error.name} is missing). Install it beside the "
            "stages, use an image that has it, or remove spec.tracking.tensorboard."
        ) from error
    fresh, target = scratch / "events", root / TENSORBOARD_FOLDER
    shutil.rmtree(fresh, ignore_errors=True)
    writer = Writer(str(fresh))
    for numbers in iterations:
        for name, value in numbers.metrics.items():
            writer.add_scalar(name.replace(".", "/", 1), value, step=numbers.index)
    writer.close()
    shutil.rmtree(target, ignore_errors=True)
    fresh.replace(target)
