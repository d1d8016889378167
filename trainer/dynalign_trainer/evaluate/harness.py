"""Tasks of lm-evaluation-harness 0.4 on our engine. Imported only where a run asks for tasks: it takes seconds."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lm_eval.evaluator import evaluate

from dynalign_contract.config import Policy
from dynalign_contract.records import CapabilityRow
from dynalign_trainer.evaluate.harness_model import EngineLM, without_score
from dynalign_trainer.evaluate.splitting import WHOLE, Part
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.runtime.progress import Watch
from dynalign_trainer.tasks.suites import Suite


def measure(
    engine: Engine,
    suite: Suite,
    policy: Policy,
    watch: Watch | None,
    *,
    thinking_tokens: int | None = None,
    part: Part = WHOLE,
) -> list[CapabilityRow]:
    """CAPABILITY rows of one policy, one for each item of the part.

    The harness draws the examples before an item from one sequence for all items, and its own choice of items numbers
    them anew: so it puts together the requests of all of them, and the engine answers those of the part.

    Tasks that have the model write are asked as chats, as the model is used; likelihoods are taken of plain text, which
    is how the harness's published numbers come about. Thoughts, of at most `thinking_tokens`, are no part of responses.
    Raises BadInputError for a task without a score per item.
    """
    engine.forget_prefixes()
    suite.begin_examples()
    lm = EngineLM(engine, policy, watch, thinking_tokens, part)
    rows: list[CapabilityRow] = []
    for chat in (False, True):
        tasks = {name: task for name, task in suite.tasks.items() if (task.OUTPUT_TYPE == "generate_until") is chat}
        if not tasks:
            continue
        found = evaluate(
            lm, {"tasks": tasks, "groups": {}}, limit=suite.limit, bootstrap_iters=0, apply_chat_template=chat
        )
        for name, task in tasks.items():
            samples = _of_one_filter(found["samples"][name])
            metric = _metric(task, samples)
            own = [sample for sample in samples if part.has(sample["doc_id"])]
            rows += [_row(suite.name, name, metric, sample, policy.version) for sample in own]
    return rows


def _of_one_filter(samples: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One sample an item: the harness has one more for each further filter of a task."""
    samples = list(samples)
    return [sample for sample in samples if sample["filter"] == samples[0]["filter"]]


def _row(suite: str, task: str, metric: str, sample: Mapping[str, Any], version: str) -> CapabilityRow:
    return {
        "policy": version,
        "task": suite,
        "item": f"{task}/{sample['doc_id']}",
        "request": _digest(sample["arguments"]),
        "metric": metric,
        "score": float(sample[metric]),
        "response": _response(sample["resps"]),
    }


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
