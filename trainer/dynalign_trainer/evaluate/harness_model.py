"""Our engine as a model of lm-evaluation-harness 0.4: likelihoods of continuations, greedy or sampled responses."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from lm_eval.api.model import LM

from dynalign_contract.config import Policy
from dynalign_contract.errors import BadInputError
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.evaluate.splitting import WHOLE, Part
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.thoughts import sample_chats
from dynalign_trainer.runtime.progress import Watch

_MAX_TOKENS: Final = 256
"""Maximum tokens of a response where a task does not say; the harness's own default."""


class EngineLM(LM):  # type: ignore[misc] # the harness is not typed
    """The harness's view of one policy on our engine."""

    def __init__(
        self,
        engine: Engine,
        policy: Policy,
        watch: Watch | None,
        thinking_tokens: int | None = None,
        part: Part = WHOLE,
    ) -> None:
        """`thinking_tokens` is the maximum length of a thought before a response; None: both share the response's.

        Only requests about items of the part are put to the engine; the others get an empty answer.
        """
        super().__init__()
        self._part = part
        self._thinking_tokens = thinking_tokens
        self._tokenizer = engine.tokenizer
        self._engine = engine
        self._policy = policy
        self._watch = watch

    @property
    def tokenizer_name(self) -> str:
        """Part of the key of a cache that is not used."""
        return str(self._tokenizer.name_or_path)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:  # noqa: FBT001, FBT002 - the harness's signature
        """Text of a chat up to where the policy begins to write, or through the answer's beginning as its last turn.

        Raises TemplateRefusalError.
        """
        chat = self._engine.chat
        messages = [Message(role=turn["role"], content=turn["content"]) for turn in chat_history]
        if add_generation_prompt:
            return chat.render(messages)
        return chat.render_answer(chat.complete(messages[:-1]), messages[-1]["content"])

    def loglikelihood(self, requests: list[Any], **_: object) -> list[tuple[float, bool]]:
        """(log-probability, whether greedy) of each request's continuation; a context may lose its beginning."""
        longest, asked = self._engine.max_length - 1, self._asked(requests)
        pairs = [self._split(*requests[index].args) for index in asked]
        contexts = [before[-max(1, longest - len(after)) :] for before, after in pairs]
        found = [(0.0, False)] * len(requests)
        if asked:
            scored = self._engine.score_continuations(
                contexts, [after for _, after in pairs], policy=self._policy, watch=self._watch
            )
            for index, likelihood in zip(asked, scored, strict=True):
                found[index] = likelihood.logprob, likelihood.greedy
        return found

    def loglikelihood_rolling(self, requests: list[Any], **_: object) -> list[float]:
        """Perplexities compare no two models item by item on a scale on which `maxDrop` has a meaning."""
        raise without_score(requests[0].task_name or "of this kind")

    def generate_until(self, requests: list[Any], **_: object) -> list[str]:
        """Responses. Requests of like sampling share a call; a prompt that is too long loses its beginning."""
        asked = {index: requests[index].args for index in self._asked(requests)}
        wanted = {index: (self._encode(text), self._sampling(options)) for index, (text, options) in asked.items()}
        texts: dict[int, str] = {}
        for sampling in dict.fromkeys(sampling for _, sampling in wanted.values()):
            chosen = [index for index, (_, own) in wanted.items() if own == sampling]
            taken = sampling.max_tokens + (self._thinking_tokens or 0)
            prompts = [wanted[index][0][taken - self._engine.max_length :] for index in chosen]
            texts |= dict(zip(chosen, self._respond(prompts, sampling, chosen), strict=True))
        return [texts.get(index, "") for index in range(len(requests))]

    def _asked(self, requests: list[Any]) -> list[int]:
        """Places of the requests that are about items of the part."""
        if self._part == WHOLE:
            return list(range(len(requests)))
        return [place for place, request in enumerate(requests) if self._part.has(request.doc_id)]

    def _respond(self, prompts: list[list[int]], sampling: Sampling, seeds: list[int]) -> list[str]:
        """A response to each prompt, without its thought; texts that end a response do not end a thought."""
        if not self._engine.chat.form.thinks:
            groups = self._engine.sample(prompts, sampling, policy=self._policy, seeds=seeds, watch=self._watch)
            return [sample.text for (sample,) in groups]
        thinking = sample_chats(
            self._engine,
            prompts,
            replace(sampling, stop=()),
            self._thinking_tokens,
            policy=self._policy,
            seeds=seeds,
            watch=self._watch,
        )
        return [_end_at(written.sample.text, sampling.stop) for (written,) in thinking]

    def _split(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of both as the model reads them in one text; blanks between them belong to the continuation.

        Without a context the end-of-text token takes its place, as in the harness.
        """
        kept = context.rstrip()
        if not kept:
            return [int(self._tokenizer.eos_token_id)], self._encode(context + continuation, special=False)
        before = self._encode(kept)
        return before, self._encode(context + continuation)[len(before) :]

    def _encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids, with the tokenizer's own special tokens if wanted, unless the text, a chat, begins with them."""
        start = self._tokenizer.bos_token
        again = bool(start) and text.startswith(start)
        return list(self._tokenizer.encode(text, add_special_tokens=special and not again))

    def _sampling(self, options: Mapping[str, Any]) -> Sampling:
        asked = int(options.get("max_gen_toks") or options.get("max_tokens") or _MAX_TOKENS)
        sampled = options.get("do_sample", True)
        until = options.get("until") or []
        return Sampling(
            temperature=float(options.get("temperature") or 0.0) if sampled else 0.0,
            top_p=float(options.get("top_p") or 1.0),
            max_tokens=min(asked, (self._engine.max_length - (self._thinking_tokens or 0)) // 2),
            stop=tuple([until] if isinstance(until, str) else until),
        )


def _end_at(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of these."""
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


def without_score(task: str) -> BadInputError:
    """The error for a task on which two models cannot be compared item by item."""
    return BadInputError(
        f"the task {task} (evaluation.capability.tasks) has no score per item for which more is better, so two models "
        "cannot be compared on it item by item. Choose tasks that are scored by accuracy or the like."
    )
