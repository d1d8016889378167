"""The models that judge the evaluation: the engine with one set of weights, or a model behind an endpoint."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from dynalign_contract.config import Policy
from dynalign_contract.objective import Objective
from dynalign_contract.settings import JudgingSettings
from dynalign_trainer.endpoints.choosing import DIGIT, LETTER, LONGEST_REPLY, Form, ask_choices
from dynalign_trainer.endpoints.client import Endpoint
from dynalign_trainer.models.choices import expected_digit, letter_tokens
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.window import Window
from dynalign_trainer.runtime.progress import Watch
from dynalign_trainer.scoring.exhibits import Candidate, Exhibitor
from dynalign_trainer.scoring.pointwise import Judge
from dynalign_trainer.scoring.scores import aggregate
from dynalign_trainer.scoring.wording import ask_plainly


class JudgeModel(Protocol):
    """Says A or B, or what an answer is worth. It knows nothing of pairs and orders."""

    @property
    def version(self) -> str:
        """`base`, `iteration-003`, or `endpoint:` and the model's name."""
        ...

    def fits(self, question: str) -> bool:
        """Whether a question of A or B leaves room for the answer in the context window."""
        ...

    def choose(self, questions: Sequence[str], watch: Watch | None) -> list[list[float]]:
        """Log-probabilities of A and B as the answer to each question; both NaN where there is none."""
        ...

    def reward(self, candidates: Sequence[Candidate], watch: Watch | None) -> list[float]:
        """What each answer is worth by all aspects together, 0 to 1; NaN where one of them has no valid score."""
        ...


class EngineJudge:
    """The stage's engine playing a policy."""

    def __init__(
        self, engine: Engine, objective: Objective, judging: JudgingSettings, policy: Policy, seed: Callable[..., int]
    ) -> None:
        """`seed` makes a 31-bit seed from a salt."""
        self._engine = engine
        self._objective = objective
        self._judging = judging
        self._policy = policy
        self._seed = seed

    @property
    def version(self) -> str:
        """The policy's."""
        return self._policy.version

    def fits(self, question: str) -> bool:
        """By the chat template and the objective's prefill, with one token for the answer."""
        return len(self._ids(question)) < self._engine.max_length

    def choose(self, questions: Sequence[str], watch: Watch | None) -> list[list[float]]:
        """The letters after the prefill. Raises BadInputError when the tokenizer cannot write them as single tokens."""
        tokens = letter_tokens(self._engine.tokenizer, self._objective.compare.prefill)
        asked = [self._ids(question) for question in questions]
        self._engine.forget_prefixes()
        return self._engine.score_next(asked, tokens, policy=self._policy, watch=watch)

    def reward(self, candidates: Sequence[Candidate], watch: Watch | None) -> list[float]:
        """As in training, before penalties."""
        judge = Judge(self._engine, self._objective, self._judging, policy=self._policy, seed=self._seed)
        self._engine.forget_prefixes()
        return [verdict.reward for verdict in judge.score(candidates, watch)]

    def _ids(self, question: str) -> list[int]:
        return self._engine.chat_ids([{"role": "user", "content": question}], self._objective.compare.prefill)


class EndpointJudge:
    """A model behind an OpenAI-compatible server.

    How much it could read is not known. It is shown what fits into the run's own context window, by the run's own
    tokenizer, so that all judges of an evaluation read the same beginnings of answers that are too long.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        objective: Objective,
        judging: JudgingSettings,
        window: Window,
        seed: Callable[..., int],
    ) -> None:
        """`seed` makes a 31-bit seed from a salt."""
        self._endpoint = endpoint
        self._objective = objective
        self._judging = judging
        self._window = window
        questions = [ask_plainly(objective, "", aspect).message for aspect in objective.aspects]
        self._exhibitor = Exhibitor(
            window.tokenizer,
            objective,
            max_length=window.max_length,
            question_tokens=max(self._tokens(question, DIGIT) for question in questions),
            delimiter_seed=seed("delimiters"),
        )

    @property
    def version(self) -> str:
        """The model's name at the server."""
        return self._endpoint.settings.version

    def fits(self, question: str) -> bool:
        """In its longest wording, with the longest answer."""
        return self._tokens(question, LETTER) <= self._window.max_length

    def choose(self, questions: Sequence[str], watch: Watch | None) -> list[list[float]]:
        """The letters by the server's log-probabilities, else the letter in the text."""
        return ask_choices(self._endpoint, questions, LETTER, watch)

    def reward(self, candidates: Sequence[Candidate], watch: Watch | None) -> list[float]:
        """The expected digit of every aspect, aggregated as in training; reasons are sampled from no endpoint."""
        aspects = self._objective.aspects
        contexts = [self._exhibitor.show(candidate).context for candidate in candidates]
        questions = [
            ask_plainly(self._objective, context, aspect).message for context in contexts for aspect in aspects
        ]
        scores = [self._valid(*expected_digit(row)) for row in ask_choices(self._endpoint, questions, DIGIT, watch)]
        how = self._judging.aggregate or self._objective.aggregate
        return [aggregate(scores[i : i + len(aspects)], how) for i in range(0, len(scores), len(aspects))]

    def _valid(self, score: float, mass: float) -> float:
        return score if mass >= self._judging.min_mass else math.nan

    def _tokens(self, question: str, form: Form) -> int:
        """Tokens of a question in its longest wording and of the longest answer to it."""
        return self._window.length([{"role": "user", "content": form.ask_again(question)}]) + LONGEST_REPLY
