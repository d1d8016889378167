"""Requests under way in a vLLM engine that is driven step by step."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from dynalign_contract.phases import Phase
from dynalign_trainer.runtime.telemetry import Telemetry


class Requests:
    """Groups of requests to one policy; a group ends as a whole, and more may be added between two steps.

    A context manager: what is still under way at its end is given up.
    """

    def __init__(self, llm: Any, adapter: Any, telemetry: Telemetry | None = None) -> None:
        """`adapter` is vLLM's LoRARequest, or None. `telemetry` learns of the first step."""
        self.ended = 0
        """Requests that have ended."""
        self.cached_tokens = 0
        """Prompt tokens of ended requests that were found in the prefix cache."""
        self._llm, self._adapter, self._telemetry = llm, adapter, telemetry
        self._open: dict[str, tuple[int, str]] = {}
        """Requests under way: vLLM's name -> group and the name within the engine."""
        self._groups: list[tuple[int, list[Any]]] = []
        """Sizes and outputs of all groups."""
        self._tokens = 0
        self._seconds = 0.0

    @property
    def underway(self) -> int:
        """Requests that have not ended."""
        return len(self._open)

    @property
    def rate(self) -> float:
        """Tokens of ended requests, read and written, per second of steps."""
        return self._tokens / max(self._seconds, 1e-9)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if self._open:
            self._llm.llm_engine.abort_request([inner for _, inner in self._open.values()], internal=True)
            self._open.clear()

    def add(self, prompts: Sequence[Sequence[int]], params: Sequence[Any]) -> int:
        """Add a group of at least one request, a SamplingParams each; returns its number, counted from 0."""
        tokenized = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        names = self._llm.enqueue(tokenized, list(params), lora_request=self._adapter, use_tqdm=False)
        group = len(self._groups)
        self._groups.append((len(names), []))
        # Within the engine a request has its own name and something random behind a hyphen.
        self._open |= {name.partition("-")[0]: (group, name) for name in names}
        return group

    def forget_prefixes(self) -> None:
        """Empty the engine's prefix cache."""
        self._llm.reset_prefix_cache()

    def step(self) -> list[tuple[int, list[Any]]]:
        """Take one step; returns the groups that have ended with it, RequestOutputs in the order of their prompts."""
        started, whole = time.monotonic(), []
        outputs = self._llm.llm_engine.step()
        if self._telemetry is not None:
            self._telemetry.phases.once(Phase.FIRST_STEP)
        for output in outputs:
            if not output.finished:
                continue
            group, _ = self._open.pop(output.request_id)
            size, finished = self._groups[group]
            finished.append(output)
            self._count(output)
            if len(finished) == size:
                whole.append((group, sorted(finished, key=lambda one: int(one.request_id))))
                self._groups[group] = (size, [])
        self._seconds += time.monotonic() - started
        return whole

    def _count(self, output: Any) -> None:
        self.ended += 1
        self.cached_tokens += output.num_cached_tokens or 0
        self._tokens += len(output.prompt_token_ids) + len(output.outputs[0].token_ids)
