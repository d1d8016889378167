"""Completions of chats with their thoughts apart: thoughts are sampled and trained on, answers are judged and shown."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from dynalign_contract.config import Policy
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.reasoning import opened_thought, part_completion
from dynalign_trainer.models.sampler import Sample
from dynalign_trainer.runtime.progress import Watch

Decode = Callable[[Sequence[int]], str]
"""Token ids -> text, control tokens included."""
_MARK_TOKENS: Final = 32
"""More than any opening mark of a thought has."""


@dataclass(frozen=True)
class Thought:
    """What a model thought before it answered."""

    text: str
    tokens: int
    """Tokens of the completion before the answer; all of them where no answer begins."""


@dataclass(frozen=True)
class Written:
    """A completion of a chat."""

    sample: Sample
    """Tokens with those of the thought; the text is the answer, empty where the thought never ends."""
    thought: Thought | None
    """None in a run whose model does not think."""


@dataclass(frozen=True)
class Lengths:
    """Maximum lengths of the parts of a completion, in tokens."""

    answer: int
    thought: int | None
    """None: thought and answer share `answer`."""

    @property
    def completion(self) -> int:
        """Tokens of the longest completion."""
        return self.answer + (self.thought or 0)


class ChatSampling:
    """How the completions of chats are drawn, and told apart into thoughts and answers.

    `sampling.max_tokens` bounds answers, `thinking_tokens` thoughts. Both are drawn at once, up to both lengths
    together, and what is beyond either is cut off: a token does not depend on those after it, so this is what
    stopping there would have brought.
    """

    def __init__(self, engine: Engine, sampling: Sampling, thinking_tokens: int | None) -> None:
        self._thinks = engine.chat.form.thinks
        self._tokenizer = engine.tokenizer
        self._lengths = Lengths(sampling.max_tokens, thinking_tokens if self._thinks else None)
        self.sampling = replace(sampling, max_tokens=self._lengths.completion)
        """What the engine is asked for."""

    def part(self, prompts: Sequence[Sequence[int]], groups: Sequence[Sequence[Sample]]) -> list[list[Written]]:
        """The completions of these prompts with their thoughts apart; shape (prompts, n), order kept."""
        if not self._thinks:
            return [[Written(sample, None) for sample in group] for group in groups]
        opened = [opened_thought(self._decode(prompt[-_MARK_TOKENS:])) for prompt in prompts]
        return [
            [part_sample(sample, self._lengths, mark, self._decode) for sample in group]
            for mark, group in zip(opened, groups, strict=True)
        ]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))


def sample_chats(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    thinking_tokens: int | None,
    *,
    policy: Policy,
    seeds: Sequence[int],
    watch: Watch | None,
) -> list[list[Written]]:
    """Draw completions of chats by `ChatSampling`; shape (prompts, n), order kept. Raises as `Engine.sample` does."""
    chats = ChatSampling(engine, sampling, thinking_tokens)
    return chats.part(prompts, engine.sample(prompts, chats.sampling, policy=policy, seeds=seeds, watch=watch))


def part_sample(sample: Sample, lengths: Lengths, opened: str, decode: Decode) -> Written:
    """A completion with its thought apart, each within its length. `opened` is the mark that the prompt ends with."""
    words = sample.token_ids[:-1] if sample.finish_reason == "stop" else sample.token_ids
    tokens = _thought_tokens(words, opened, decode)
    if tokens is None:
        whole = sample if lengths.thought is None else _cut(sample, lengths.thought)
        thought = part_completion(opened + decode(words[: len(whole.token_ids)])).thought
        return Written(replace(whole, text=""), Thought(thought, len(whole.token_ids)))
    if lengths.thought is not None and tokens > lengths.thought:
        return part_sample(_cut(sample, lengths.thought), lengths, opened, decode)
    kept = sample if lengths.thought is None else _cut(sample, tokens + lengths.answer)
    found = part_completion(opened + decode(words[: len(kept.token_ids)]))
    return Written(replace(kept, text=found.answer), Thought(found.thought, tokens))


def _thought_tokens(words: Sequence[int], opened: str, decode: Decode) -> int | None:
    """Tokens up to the answer's first character; None where no answer begins."""
    position = part_completion(opened + decode(words)).position
    if position is None:
        return None
    wanted = position - len(opened)
    return bisect_left(range(len(words)), wanted, key=lambda count: len(decode(words[:count])))


def _cut(sample: Sample, longest: int) -> Sample:
    """The sample as it would have been had it ended at this length."""
    if len(sample.token_ids) <= longest:
        return sample
    return replace(
        sample, token_ids=sample.token_ids[:longest], logprobs=sample.logprobs[:longest], finish_reason="length"
    )
