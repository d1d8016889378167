"""Sampling of completions: what vLLM is asked, and what becomes of its outputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dynalign_contract.config import Policy
from dynalign_trainer.models.broken_numbers import refuse_infinite
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.detokenizing import Detokenizer
from dynalign_trainer.models.requests import Requests
from dynalign_trainer.runtime.useful_time import Useful


@dataclass(frozen=True)
class Sample:
    """One completion."""

    token_ids: tuple[int, ...]
    """The final EOS included when the model wrote one."""
    logprobs: tuple[float, ...]
    """One a token, of the distribution that was sampled from (after temperature and top-p)."""
    finish_reason: str
    """`stop` or `length`."""
    text: str


@dataclass(frozen=True)
class Drawn:
    """A group of completions that has ended."""

    number: int
    """The group's, as `Sampler.add` has returned it."""
    samples: list[list[Sample]]
    """Shape (prompts, n), in the order in which the prompts were given."""


@dataclass(frozen=True)
class _Group:
    n: int
    """Completions of each prompt."""
    is_raw: bool
    """vLLM makes no text of them."""


class Sampler(Protocol):
    """Groups of prompts whose completions are being drawn; more groups may be added meanwhile.

    Made by `Engine.sampler`: what is under way when its block ends is given up.
    """

    @property
    def underway(self) -> int:
        """Completions that have not ended."""
        ...

    @property
    def ended(self) -> int:
        """Completions that have ended."""
        ...

    @property
    def rate(self) -> float:
        """Tokens per second, read and written."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether another group would begin at once."""
        ...

    def add(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> int:
        """Draw completions of these prompts, one at least; candidate k of a prompt with its seed + k.

        Returns the number of the group, counted from 0.
        """
        ...

    def add_alone(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> int:
        """Draw them from an empty prefix cache, where there is room: what comes then depends on this call alone."""
        ...

    def advance(self, watch: Callable[[], None], *, for_room: bool = False) -> list[Drawn]:
        """Take steps until a group has ended or, with `for_room`, another one would begin at once.

        `watch` is called after each step and may raise to stop. Raises BadInputError where a log-probability is NaN or
        infinite.
        """
        ...


class VllmSampler:
    """A `Sampler` in this process."""

    def __init__(
        self,
        requests: Requests,
        detokenizer: Detokenizer | None,
        policy: Policy,
        useful: Useful,
        *,
        slots: int | None,
    ) -> None:
        """`detokenizer` is None for a tokenizer whose texts only vLLM can make; `slots` as in `Engine`."""
        self._requests, self._detokenizer = requests, detokenizer
        self._policy, self._useful = policy, useful
        self._slots = 1 if slots is None else slots
        self._groups: list[_Group] = []

    @property
    def underway(self) -> int:
        """Completions that have not ended."""
        return self._requests.underway

    @property
    def ended(self) -> int:
        """Completions that have ended."""
        return self._requests.ended

    @property
    def rate(self) -> float:
        """Tokens per second, read and written."""
        return self._requests.rate

    @property
    def has_room(self) -> bool:
        """Whether another group would begin at once."""
        return self.underway < self._slots

    def add(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> int:
        """Draw completions of these prompts, as `Sampler.add` says."""
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts")
        is_raw = self._detokenizer is not None and not sampling.stop
        params = [_params(sampling, seed + k, is_raw=is_raw) for seed in seeds for k in range(sampling.n)]
        self._groups.append(_Group(sampling.n, is_raw))
        return self._requests.add([prompt for prompt in prompts for _ in range(sampling.n)], params)

    def add_alone(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> int:
        """Draw them from an empty prefix cache, as `Sampler.add_alone` says."""
        self._requests.forget_prefixes()
        return self.add(prompts, sampling, seeds)

    def advance(self, watch: Callable[[], None], *, for_room: bool = False) -> list[Drawn]:
        """Take steps, as `Sampler.advance` says."""
        drawn: list[Drawn] = []
        with self._useful():
            while not drawn and self.underway and not (for_room and self.has_room):
                drawn = [self._drawn(number, outputs) for number, outputs in self._requests.step()]
                watch()
        return drawn

    def _drawn(self, number: int, outputs: Sequence[Any]) -> Drawn:
        group = self._groups[number]
        samples = [self._sample(output, is_raw=group.is_raw) for output in outputs]
        refuse_infinite((value for sample in samples for value in sample.logprobs), self._policy)
        return Drawn(number, [samples[i : i + group.n] for i in range(0, len(samples), group.n)])

    def _sample(self, request: Any, *, is_raw: bool) -> Sample:
        output = request.outputs[0]
        ids, reason = tuple(output.token_ids), str(output.finish_reason)
        text = output.text
        if is_raw and self._detokenizer is not None:
            text = self._detokenizer.text(request.prompt_token_ids, ids[:-1] if reason == "stop" else ids)
        return Sample(ids, tuple(_logprobs(ids, output.logprobs)), reason, text)


def _params(sampling: Sampling, seed: int, *, is_raw: bool) -> Any:
    """What vLLM is asked for one completion; `is_raw`: no text, and log-probabilities in plain lists.

    Both are made in the thread that drives the engine, and take as long as some models' steps do on a GPU.
    """
    from vllm import SamplingParams

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        stop=list(sampling.stop),
        seed=seed,
        logprobs=0,
        detokenize=not is_raw,
        flat_logprobs=is_raw,
    )


def _logprobs(ids: Sequence[int], positions: Any) -> list[float]:
    """Each token's own log-probability, from vLLM's list of mappings or from its flat lists."""
    if isinstance(positions, list):
        return [position[token].logprob for token, position in zip(ids, positions, strict=True)]
    starts = positions.start_indices
    if [positions.token_ids[start] for start in starts] != list(ids):
        raise RuntimeError("vLLM's flat log-probabilities are not those of the sampled tokens")
    return [positions.logprobs[start] for start in starts]
