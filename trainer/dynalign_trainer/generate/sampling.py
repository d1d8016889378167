"""The loop of generate: parts are sampled in one stream, and written as they end.

On a CPU an engine has one part under way at a time, from an empty prefix cache, so that its rows depend on the part and
the run's seed alone, to the last bit. On a GPU, where no two runs of a batch are equal to the last bit anyway, the next
part enters as soon as there is room for its completions: sequences that end early leave no gaps behind.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from dynalign_contract.config import GenerateParams
from dynalign_contract.errors import BadInputError
from dynalign_contract.records import PromptRow, RolloutRow
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.opening import start_engine
from dynalign_trainer.models.sampler import Drawn, Sampler
from dynalign_trainer.models.thoughts import ChatSampling, Written
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.shared_parts import SharedParts, Task

Shared = SharedParts[PromptRow, RolloutRow]


def generate(context: StageContext[GenerateParams], shared: Shared) -> float | None:
    """Sample all parts that are left for this pod; the engine starts with the first of them.

    Returns the tokens that were written in a second, None where there was nothing to do.
    """
    task = shared.take() or shared.wait()
    if task is None:
        return None
    engine = start_engine(context, [context.params.policy])
    started = time.monotonic()
    with engine.sampler(context.params.policy) as sampler:
        stream = Stream(context, engine, sampler, shared)
        while task is not None:
            stream.add(task)
            task = stream.run()
    return stream.tokens / (time.monotonic() - started)


@dataclass(frozen=True)
class _Underway:
    """A part whose completions are being drawn."""

    task: Task[PromptRow]
    asked: list[PromptRow]
    """The prompts of the part as the model sees them."""
    ids: list[list[int]]
    """Tokens of these prompts."""


class Stream:
    """Parts under way in an engine."""

    def __init__(self, context: StageContext[GenerateParams], engine: Engine, sampler: Sampler, shared: Shared) -> None:
        self.tokens = 0
        """Tokens that were written so far."""
        self._context, self._engine, self._sampler, self._shared = context, engine, sampler, shared
        settings = context.params.generation
        self._candidates = settings.candidates
        self._chats = ChatSampling(
            engine,
            Sampling(temperature=settings.temperature, max_tokens=settings.max_tokens, n=settings.candidates),
            settings.thinking_tokens,
        )
        self._underway: dict[int, _Underway] = {}
        self._ended = 0
        """Completions of parts that are written."""

    def add(self, task: Task[PromptRow]) -> None:
        """Begin with a part. Raises BadInputError naming a prompt that leaves no room for an answer."""
        chat = self._engine.chat
        asked: list[PromptRow] = [{**row, "messages": chat.complete(row["messages"])} for row in task.part.inputs]
        ids = [chat.encode(row["messages"]) for row in asked]
        self._check_room(asked, ids)
        seeds = [self._context.seed(row["prompt_id"]) for row in asked]
        add = self._sampler.add_alone if self._engine.slots is None else self._sampler.add
        number = add(ids, self._chats.sampling, seeds)
        self._underway[number] = _Underway(task, asked, ids)

    def run(self) -> Task[PromptRow] | None:
        """Sample until there is room for another part, which is returned; None once nothing is left to do."""
        while self._underway:
            has_room = self._sampler.has_room
            if has_room and (task := self._shared.take()) is not None:
                return task
            for drawn in self._sampler.advance(self._watch, for_room=not has_room):
                self._write(drawn)
        return self._shared.take() or self._shared.wait()

    def _write(self, drawn: Drawn) -> None:
        part = self._underway.pop(drawn.number)
        groups = self._chats.part(part.ids, drawn.samples)
        version = self._context.params.policy.version
        rows = [
            rollout_row(prompt, ids, k, written, version)
            for prompt, ids, group in zip(part.asked, part.ids, groups, strict=True)
            for k, written in enumerate(group)
        ]
        self._shared.finish(part.task, rows)
        self._ended += len(rows)
        self.tokens += sum(len(row["completion_ids"]) for row in rows)

    def _watch(self) -> None:
        """Between two steps: publish progress, keep the leases, obey SIGTERM."""
        telemetry, begun = self._context.telemetry, self._sampler.ended - self._ended
        telemetry.progress(self._shared.done * self._candidates + begun, self._shared.total * self._candidates)
        telemetry.rate(self._sampler.rate)
        self._shared.renew()
        self._context.check_stop()

    def _check_room(self, asked: Sequence[PromptRow], prompts: Sequence[Sequence[int]]) -> None:
        needed, window = self._context.params.generation.completion_tokens, self._engine.max_length
        for row, ids in zip(asked, prompts, strict=True):
            if len(ids) + needed > window:
                raise BadInputError(
                    f"prompt {row['prompt_id']} has {len(ids)} tokens and an answer may have {needed}, together more "
                    f"than the context window of {window}. Lower generation.maxTokens or prompts.maxTokens, or raise "
                    "engine.maxLength."
                )


def rollout_row(prompt: PromptRow, ids: Sequence[int], candidate: int, written: Written, policy: str) -> RolloutRow:
    """A candidate as it is stored: `ids` are the tokens of the prompt, those of the answer include its thought."""
    sample, thought = written.sample, written.thought
    row: RolloutRow = {
        "prompt_id": prompt["prompt_id"],
        "candidate": candidate,
        "prompt_ids": list(ids),
        "completion_ids": list(sample.token_ids),
        "logprobs": list(sample.logprobs),
        "finish_reason": sample.finish_reason,
        "policy": policy,
        "text": sample.text,
        "messages": prompt["messages"],
    }
    if "columns" in prompt:
        row["columns"] = prompt["columns"]
    if thought is not None:
        row |= {"thought": thought.text, "thought_tokens": thought.tokens}
    return row
