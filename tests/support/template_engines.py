"""Engines without a model: what they are asked is kept, what they write is given."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.sampler import Sample

EOS = ord("\x03")


@dataclass
class RecordingEngine:
    """An engine that keeps what it is asked, as text."""

    chat: ChatTemplate
    max_length: int = 100_000
    asked: list[str] = field(default_factory=list)

    @property
    def tokenizer(self) -> Any:
        return self.chat.tokenizer

    def forget_prefixes(self) -> None:
        """Nothing is cached."""

    def sample(self, prompts: Sequence[Sequence[int]], *_: object, **__: object) -> list[list[Sample]]:
        self.asked += map(self.tokenizer.decode, prompts)
        return [[Sample((46,), (0.0,), "stop", "Good.")] for _ in prompts]

    def score_next(self, prompts: Sequence[Sequence[int]], token_ids: Sequence[int], **_: object) -> list[list[float]]:
        self.asked += map(self.tokenizer.decode, prompts)
        return [[-1.0] * len(token_ids) for _ in prompts]


@dataclass
class WritingEngine:
    """An engine that goes on from every prompt with the same text, up to the maximum length."""

    chat: ChatTemplate
    text: str
    ended: bool = True
    max_length: int = 10_000
    samplings: list[Sampling] = field(default_factory=list)

    @property
    def tokenizer(self) -> Any:
        return self.chat.tokenizer

    def forget_prefixes(self) -> None:
        """Nothing is cached."""

    def sample(self, prompts: Sequence[Sequence[int]], sampling: Sampling, **_: object) -> list[list[Sample]]:
        self.samplings.append(sampling)
        ids = [*self.tokenizer.encode(self.text, add_special_tokens=False), *([EOS] if self.ended else [])]
        whole = len(ids) <= sampling.max_tokens and self.ended
        kept = tuple(ids[: sampling.max_tokens])
        text = self.tokenizer.decode(kept[:-1] if whole else kept)
        return [[Sample(kept, (-1.0,) * len(kept), "stop" if whole else "length", text)] for _ in prompts]
