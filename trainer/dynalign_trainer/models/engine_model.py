"""A policy in this stage's engine, as a ChatModel."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from dynalign_contract.config import Policy
from dynalign_trainer.models.chat_model import ChatTurn, Completion, Sampling, Usage
from dynalign_trainer.models.choices import Choices
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.sampler import Sample
from dynalign_trainer.models.window import Window
from dynalign_trainer.runtime.progress import Watch


@dataclass
class EngineModel:
    """The engine with one policy's weights; answers go on from the turn's prefill, token by token, without thoughts."""

    engine: Engine
    policy: Policy
    usage: Usage = field(default_factory=Usage)

    @property
    def version(self) -> str:
        """The policy's version."""
        return self.policy.version

    @property
    def window(self) -> Window:
        """The engine's tokenizer and context window."""
        return Window(self.engine.chat, self.engine.max_length)

    @property
    def takes_prefill(self) -> bool:
        """True: the engine continues any tokens."""
        return True

    def write(
        self, turns: Sequence[ChatTurn], sampling: Sampling, *, seeds: Sequence[int], watch: Watch | None
    ) -> list[Completion | None]:
        """One completion for each turn, drawn with its seed."""
        prompts = [self._ids(turn) for turn in turns]
        groups = self.engine.sample(prompts, sampling, policy=self.policy, seeds=seeds, watch=watch)
        self._count(prompts, sum(len(sample.token_ids) for group in groups for sample in group))
        return [_completion(turn, sample) for turn, (sample,) in zip(turns, groups, strict=True)]

    def choose(self, turns: Sequence[ChatTurn], choices: Choices, watch: Watch | None) -> list[list[float]]:
        """The choices' log-probabilities right after each turn's lead, from one forward pass."""
        if not turns:
            return []
        tokens = choices.tokens(self.engine.tokenizer, turns[0].lead)
        prompts = [self._ids(turn) for turn in turns]
        self._count(prompts, len(prompts))
        return self.engine.score_next(prompts, tokens, policy=self.policy, watch=watch)

    def check_choices(self, choices: Choices, lead: str) -> None:
        """Raise BadInputError if the tokenizer does not write each choice as one token after `lead`."""
        choices.tokens(self.engine.tokenizer, lead)

    def length(self, turn: ChatTurn, choices: Choices) -> int:  # noqa: ARG002 - every choice is one token
        """The turn's tokens by the chat template, and one for the answer."""
        return len(self._ids(turn)) + 1

    def forget(self) -> None:
        """Empty the engine's prefix cache."""
        self.engine.forget_prefixes()

    def exhausted_budget(self) -> str | None:
        """None: the run's own engine has no budget."""
        return None

    def _ids(self, turn: ChatTurn) -> list[int]:
        ids = self.engine.chat.encode_answer([{"role": "user", "content": turn.message}], turn.prefill + turn.opening)
        closing = self.engine.tokenizer.encode(turn.closing, add_special_tokens=False) if turn.closing else []
        return [*ids, *turn.written, *closing]

    def _count(self, prompts: Sequence[Sequence[int]], written: int) -> None:
        read = sum(map(len, prompts))
        self.usage.requests += len(prompts)
        self.usage.read += read
        self.usage.tokens += read + written


def _completion(turn: ChatTurn, sample: Sample) -> Completion:
    finished = sample.finish_reason == "stop"
    ids = sample.token_ids[:-1] if finished else sample.token_ids
    return Completion(turn.opening, sample.text, finished, ids)
