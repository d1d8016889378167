"""Tasks of lm-evaluation-harness 0.4 on our engine. Imported only where a run asks for tasks: it takes seconds."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lm_eval.api.model import TemplateLM
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from dynalign_contract.config import Policy
from dynalign_contract.errors import BadInputError
from dynalign_contract.records import Row
from dynalign_contract.settings import OWN_TASK_PREFIX, OWN_TASKS
from dynalign_trainer.engine import Engine, Sampling, Watch

_OWN: Final = Path(__file__).with_name("tasks")
_FEWSHOT_SEED: Final = 1234
"""The harness's own default."""
_MAX_TOKENS: Final = 256
"""Longest response where a task does not say; the harness's own default."""

log = logging.getLogger("dynalign.evaluate")


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


class EngineLM(TemplateLM):  # type: ignore[misc] # the harness is not typed
    """The harness's view of one policy on our engine."""

    def __init__(self, engine: Engine, policy: Policy, watch: Watch | None) -> None:
        super().__init__()
        self.tokenizer = engine.tokenizer
        self._engine = engine
        self._policy = policy
        self._watch = watch

    @property
    def eot_token_id(self) -> int:
        """Context of a continuation that has none."""
        return int(self.tokenizer.eos_token_id)

    @property
    def tokenizer_name(self) -> str:
        """Part of the key of a cache that is not used."""
        return str(self.tokenizer.name_or_path)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:  # noqa: FBT001 - the harness's signature
        """Token ids; the tokenizer's own special tokens are added unless the text, a chat, begins with them."""
        start = self.tokenizer.bos_token
        default = not (start and string.startswith(start))
        wanted = default if add_special_tokens is None else add_special_tokens
        return list(self.tokenizer.encode(string, add_special_tokens=wanted))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:  # noqa: FBT001, FBT002 - the harness's signature
        """The chat as text, up to the assistant's turn."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def loglikelihood(self, requests: list[Any], **_: object) -> list[tuple[float, bool]]:
        """(log-probability, whether greedy) of each request's continuation."""
        return list(super().loglikelihood(requests, disable_tqdm=True))

    def _loglikelihood_tokens(self, requests: list[Any], **_: object) -> list[tuple[float, bool]]:
        longest = self._engine.max_length - 1
        contexts = [before[-max(1, longest - len(after)) :] for _, before, after in requests]
        continuations = [after for _, _, after in requests]
        scored = self._engine.score_continuations(contexts, continuations, policy=self._policy, watch=self._watch)
        return [(found.logprob, found.greedy) for found in scored]

    def loglikelihood_rolling(self, requests: list[Any], **_: object) -> list[float]:
        """Perplexities compare no two models item by item on a scale on which `maxDrop` has a meaning."""
        raise _without_score(requests[0].task_name or "of this kind")

    def generate_until(self, requests: list[Any], **_: object) -> list[str]:
        """Responses. Requests of like sampling share a call; a prompt that is too long loses its beginning."""
        wanted = [(self.tok_encode(text), self._sampling(options)) for text, options in (r.args for r in requests)]
        texts: dict[int, str] = {}
        for sampling in dict.fromkeys(sampling for _, sampling in wanted):
            chosen = [index for index, (_, own) in enumerate(wanted) if own == sampling]
            prompts = [wanted[index][0][sampling.max_tokens - self._engine.max_length :] for index in chosen]
            groups = self._engine.sample(prompts, sampling, policy=self._policy, seeds=chosen, watch=self._watch)
            texts |= {index: sample.text for index, (sample,) in zip(chosen, groups, strict=True)}
        return [texts[index] for index in range(len(requests))]

    def _sampling(self, options: Mapping[str, Any]) -> Sampling:
        asked = int(options.get("max_gen_toks") or options.get("max_tokens") or _MAX_TOKENS)
        sampled = options.get("do_sample", True)
        until = options.get("until") or []
        return Sampling(
            temperature=float(options.get("temperature") or 0.0) if sampled else 0.0,
            top_p=float(options.get("top_p") or 1.0),
            max_tokens=min(asked, self._engine.max_length // 2),
            stop=tuple([until] if isinstance(until, str) else until),
        )


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
    raise _without_score(task.task_name)


def _without_score(task: str) -> BadInputError:
    return BadInputError(
        f"the task {task} (evaluation.capability.tasks) has no score per item for which more is better, so two models "
        "cannot be compared on it item by item. Choose tasks that are scored by accuracy or the like."
    )


def _digest(arguments: object) -> str:
    text = json.dumps(arguments, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _response(responses: Sequence[Sequence[Any]]) -> str:
    """A text as it is, log-likelihoods rounded."""
    first = [response[0] for response in responses]
    if all(isinstance(response, str) for response in first):
        return "\n".join(first)
    return ", ".join(f"{response[0]:.4f}" for response in first)
