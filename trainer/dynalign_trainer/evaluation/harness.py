"""Tasks of lm-evaluation-harness 0.4 on our engine. Imported only where a run asks for tasks: it takes seconds."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from dynalign_contract.config import Policy
from dynalign_contract.errors import BadInputError
from dynalign_contract.records import Row
from dynalign_contract.settings import OWN_TASK_PREFIX, OWN_TASKS
from dynalign_trainer.engine import Engine, Watch
from dynalign_trainer.evaluation.harness_model import EngineLM, without_score

_OWN: Final = Path(__file__).with_name("tasks")
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
        counts = [len(task.eval_docs) for task in self.tasks.values()]
        return sum(count if self.limit is None else min(count, self.limit) for count in counts)


def load_suites(names: Sequence[str], limit: int | None) -> list[Suite]:
    """Find the tasks and their items; other than our own are looked for among those of the harness.

    Raises BadInputError when there is no such task, or its data are not in reach.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    foreign = not all(name.startswith(OWN_TASK_PREFIX) for name in names)
    manager = TaskManager(include_path=str(_OWN), include_defaults=foreign)
    return [Suite(name, _load(manager, name), limit) for name in names]


def measure(engine: Engine, suite: Suite, policy: Policy, watch: Watch | None) -> list[Row]:
    """CAPABILITY rows of one policy, one an item.

    Tasks that have the model write are asked as chats, as the model is used; likelihoods are taken of plain text, which
    is how the harness's published numbers come about. Raises BadInputError for a task without a score per item.
    """
    engine.forget_prefixes()
    lm = EngineLM(engine, policy, watch)
    rows: list[Row] = []
    for chat in (False, True):
        tasks = {name: task for name, task in suite.tasks.items() if (task.OUTPUT_TYPE == "generate_until") is chat}
        if not tasks:
            continue
        found = evaluate(
            lm, {"tasks": tasks, "groups": {}}, limit=suite.limit, bootstrap_iters=0, apply_chat_template=chat
        )
        for name, task in tasks.items():
            rows += _rows(suite.name, name, task, found["samples"][name], policy)
    return rows


def _load(manager: TaskManager, name: str) -> Mapping[str, Any]:
    if name not in manager.all_tasks:
        raise BadInputError(
            f"evaluation.capability.tasks names {name}, which lm-evaluation-harness does not have; write "
            f"{', '.join(OWN_TASKS)} or a task of the harness."
        )
    try:
        tasks: dict[str, Any] = manager.load([name])["tasks"]
    except Exception as error:  # what a data set that is out of reach raises depends on its loader
        raise BadInputError(
            f"the data of the task {name} (evaluation.capability.tasks) cannot be loaded: {error}. This stage has no "
            "network: put the data set into the Hugging Face cache (HF_HOME) of its pod, or write dynalign_choices or "
            "dynalign_instructions, which bring their own."
        ) from error
    for task in tasks.values():
        task.set_fewshot_seed(_FEWSHOT_SEED)
    return tasks


def _rows(suite: str, name: str, task: Any, samples: Iterable[Mapping[str, Any]], policy: Policy) -> list[Row]:
    samples = list(samples)
    chosen = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    metric = _metric(task, chosen)
    return [
        {
            "policy": policy.version,
            "task": suite,
            "item": f"{name}/{sample['doc_id']}",
            "request": _digest(sample["arguments"]),
            "metric": metric,
            "score": float(sample[metric]),
            "response": _response(sample["resps"]),
        }
        for sample in chosen
    ]


def _metric(task: Any, samples: Sequence[Mapping[str, Any]]) -> str:
    """The task's first metric that is a number for every item, more being better."""
    rising = task.higher_is_better()
    for metric in samples[0]["metrics"]:
        if rising.get(metric, True) and all(isinstance(sample[metric], int | float) for sample in samples):
            return str(metric)
    raise without_score(task.task_name)


def _digest(arguments: object) -> str:
    text = json.dumps(arguments, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _response(responses: Sequence[Sequence[Any]]) -> str:
    """A text as it is, log-likelihoods rounded."""
    first = [response[0] for response in responses]
    if all(isinstance(response, str) for response in first):
        return "\n".join(first)
    return ", ".join(f"{response[0]:.4f}" for response in first)
