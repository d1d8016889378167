"""The tasks that a run names, and their items. Imported only where a run asks for tasks: it takes seconds."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lm_eval.tasks
from lm_eval.tasks import TaskManager

from dynalign_contract.errors import BadInputError
from dynalign_contract.settings import OWN_TASK_PREFIX, OWN_TASKS
from dynalign_trainer.tasks.data import check_sentences, data_in

_OWN: Final = Path(__file__).with_name("own")
_HARNESS: Final = Path(lm_eval.tasks.__file__).parent
_FEWSHOT_SEED: Final = 1234
"""The harness's own default."""


@dataclass(frozen=True)
class Suite:
    """A task, or a group of tasks, as a run file names it."""

    name: str
    tasks: Mapping[str, Any]
    """The harness's own tasks by name."""
    limit: int | None
    """Items of each of them."""

    @property
    def items(self) -> int:
        """Items in all."""
        return sum(self.counts)

    @property
    def counts(self) -> list[int]:
        """Items of each of its tasks."""
        counts = [len(task.eval_docs) for task in self.tasks.values()]
        return [count if self.limit is None else min(count, self.limit) for count in counts]

    def begin_examples(self) -> None:
        """Have the harness draw the same examples before the items as the last time, for whichever policy."""
        for task in self.tasks.values():
            task.set_fewshot_seed(_FEWSHOT_SEED)


def load_suites(names: Sequence[str], limit: int | None, data: Path) -> list[Suite]:
    """Find the tasks and their items; other than our own are looked for among those of the harness.

    Their data come from the folder of their name in `data`, where fetch has made one, else from the Hugging Face cache
    of this machine. Raises BadInputError when there is no such task, or its data are not in reach.
    """
    manager = open_harness(names)
    return [Suite(name, _load_here(manager, name, data / name), limit) for name in names]


def load_task_data(name: str, folder: Path | None) -> None:
    """Load all that the items of a task are made of, into `folder` or where it is already.

    Raises BadInputError when there is no such task; what a data set that is out of reach raises depends on its loader.
    """
    for task in _load(open_harness([name]), name, folder).values():
        len(task.eval_docs)
        if task.config.num_fewshot:
            list(task.fewshot_docs())


def open_harness(names: Sequence[str]) -> TaskManager:
    """The harness with our own tasks and those that are named.

    Reading all of its 14 thousand files takes ten seconds. A task that lies in the folder of its name (gsm8k, arc_easy)
    needs no other; for groups and tags, whose members may lie anywhere, and for all others they are read.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # Metrics that do not ship with the harness are scripts of the hub; read when a task first imports `evaluate`.
    os.environ["HF_EVALUATE_OFFLINE"] = "1"
    foreign = [name for name in names if not name.startswith(OWN_TASK_PREFIX)]
    folders = [_folder_of(name) for name in foreign]
    if None not in folders:
        paths = [str(_OWN), *dict.fromkeys(str(folder) for folder in folders)]
        manager = TaskManager(include_path=paths, include_defaults=False)
        if all(name in manager.all_subtasks for name in foreign):
            return manager
    return TaskManager(include_path=str(_OWN))


def _folder_of(name: str) -> Path | None:
    """The harness's folder with the longest name that a task's own begins with, if there is one."""
    words = name.split("_")
    beginnings = ("_".join(words[:count]) for count in range(len(words), 0, -1))
    return next((_HARNESS / found for found in beginnings if found and (_HARNESS / found).is_dir()), None)


def _load_here(manager: TaskManager, name: str, folder: Path) -> Mapping[str, Any]:
    """Load a task like `_load`, for a stage without network."""
    fetched = folder.is_dir()
    try:
        return _load(manager, name, folder if fetched else None)
    except BadInputError:
        raise
    except Exception as error:  # what a data set that is out of reach raises depends on its loader
        told = (
            f"the data of the task {name} (evaluation.capability.tasks) in {folder} cannot be loaded"
            if fetched
            else f"the data of the task {name} (evaluation.capability.tasks) cannot be loaded: the fetch stage has "
            f"brought none ({folder} is not there), as it does for the tasks that a run names when it begins, and "
            "this machine's Hugging Face cache (HF_HOME) has none either"
        )
        raise BadInputError(
            f"{told}. {type(error).__name__}: {error}. This stage has no network: start a new run that names {name}, "
            f"take it out of this one, or write {' or '.join(OWN_TASKS)}, which bring their own data."
        ) from error


def _load(manager: TaskManager, name: str, folder: Path | None) -> Mapping[str, Any]:
    if name not in manager.all_tasks:
        raise BadInputError(
            f"evaluation.capability.tasks names {name}, which lm-evaluation-harness does not have; write "
            f"{', '.join(OWN_TASKS)} or a task of the harness."
        )
    try:
        with data_in(folder):
            tasks: dict[str, Any] = manager.load([name])["tasks"]
    except FileNotFoundError as error:
        if "module script" not in str(error):
            raise
        raise _foreign_metric(name, str(error)) from error
    for task in tasks.values():
        check_metrics(name, task)
    check_sentences(name)
    return tasks


def check_metrics(name: str, task: Any) -> None:
    """Raise BadInputError for a task with a metric that does not ship: the harness only logs that it has none."""
    if task.config.process_results is not None:
        return  # the task scores by itself, and the functions are not asked for
    missing = [metric for metric, function in getattr(task, "_metric_fn_list", {}).items() if function is None]
    if missing:
        raise _foreign_metric(name, f"it names {', '.join(missing)}")


def _foreign_metric(name: str, told: str) -> BadInputError:
    return BadInputError(
        f"evaluation.capability.tasks: {name} scores with a metric that does not ship with lm-evaluation-harness: its "
        f"code would come from the hub, which dynalign never runs ({' '.join(told.split())[:200]}). Name another task."
    )
