"""What every engine offers: adapters, sampling and next-token scores.

`vllm_engine` runs one in the stage's own process, `replicated_engine` feeds several that run in processes of their own.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from dynalign_contract.config import Policy
from dynalign_contract.errors import BadInputError
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.sampler import Sample, Sampler
from dynalign_trainer.runtime.progress import Watch
from dynalign_trainer.runtime.telemetry import Telemetry


@dataclass(frozen=True)
class Likelihood:
    """How a given continuation follows its context."""

    logprob: float
    """Log-probability of the whole continuation, natural logarithm."""
    greedy: bool
    """Whether every token is the likeliest at its place."""


class Engine(ABC):
    """The base model and any number of policies, ready to be asked. Made by `opening.start_engine`."""

    def __init__(self, chat: ChatTemplate, max_length: int, *, slots: int | None = None) -> None:
        self.chat = chat
        self.max_length = max_length
        """Context window in tokens, prompt and completion together."""
        self.slots = slots
        """Sequences that run side by side, on a GPU; None where groups must be alone to be the same to the last bit."""

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.chat.tokenizer

    @property
    @abstractmethod
    def cached_tokens(self) -> int:
        """Prompt tokens so far that were found in the prefix cache and not computed again."""

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        policy: Policy,
        seeds: Sequence[int],
        watch: Watch | None = None,
    ) -> list[list[Sample]]:
        """Draw completions; shape (prompts, n), order kept. Candidate k of a prompt is drawn with its seed + k.

        Raises BadInputError naming the index of a prompt that leaves no room for `max_tokens`, and where a
        log-probability is NaN or infinite.
        """
        if not prompts:
            return []
        with self.sampler(policy) as sampler:
            self.check_lengths(prompts, sampling.max_tokens)
            sampler.add(prompts, sampling, seeds)
            total = len(prompts) * sampling.n

            def tell() -> None:
                if watch is not None:
                    watch(sampler.ended, total, sampler.rate)

            (drawn,) = sampler.advance(tell)
            return drawn.samples

    @abstractmethod
    def sampler(self, policy: Policy) -> AbstractContextManager[Sampler]:
        """Draw completions by this policy; the engine does nothing else meanwhile."""

    @abstractmethod
    def score_next(
        self,
        prompts: Sequence[Sequence[int]],
        token_ids: Sequence[int],
        *,
        policy: Policy,
        share_prefixes: bool = True,
        watch: Watch | None = None,
    ) -> list[list[float]]:
        """Log-probabilities of exactly these tokens as the next one; shape (prompts, tokens), order kept.

        Without `share_prefixes` each prompt is computed whole, as an engine without a prefix cache would.

        They are those of the model itself: at temperature 1 and top-p 1 vLLM's processed values equal the raw ones.
        Raises BadInputError naming the index of a prompt that fills the context window, and where a log-probability is
        NaN.
        """

    @abstractmethod
    def score_continuations(
        self,
        contexts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        *,
        policy: Policy,
        watch: Watch | None = None,
    ) -> list[Likelihood]:
        """Log-probability of each continuation after its context, teacher-forced; order kept, neither may be empty.

        The prefix cache is of no use here: it holds no logits. Raises BadInputError naming the index of a pair that
        fills the context window, and where a log-probability is NaN.
        """

    @abstractmethod
    def for_stage(self, telemetry: Telemetry) -> "Engine":
        """This engine for the next stage of a rollout, which finds no prefixes of the stage before it in the cache."""

    @abstractmethod
    def forget_prefixes(self) -> None:
        """Empty the prefix cache, so that what follows does not depend, in its last bits, on what came before."""

    def check_lengths(self, prompts: Sequence[Sequence[int]], reserve: int) -> None:
        """Raise BadInputError naming the index of a prompt that leaves no room for `reserve` more tokens."""
        for index, prompt in enumerate(prompts):
            if not 0 < len(prompt) <= self.max_length - reserve:
                raise BadInputError(
                    f"prompt {index} of {len(prompts)} has {len(prompt)} tokens, and {reserve} more are to follow, but "
                    f"the context window has {self.max_length}. Raise engine.maxLength or lower generation.maxTokens."
                )
