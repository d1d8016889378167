"""A running vLLM engine: adapters, sampling and next-token scores.

The engine runs inside the stage's own process and is driven step by step, so that progress is known and SIGTERM is
obeyed between two steps. Requests enter in order before the first step, which makes the batches, and with them every
last bit of the log-probabilities on a CPU, a function of the call alone (given `forget_prefixes`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynalign_contract.config import BASE_POLICY, Policy
from dynalign_contract.errors import BadConfigError, BadInputError
from dynalign_contract.inputs import Input
from dynalign_contract.phases import Phase
from dynalign_trainer.models.broken_numbers import refuse_nan
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.detokenizing import open_detokenizer
from dynalign_trainer.models.engine_start import Lora, engine_arguments, prepare_environment, start_llm
from dynalign_trainer.models.engine_weights import (
    AdapterWeights,
    BaseWeights,
    MergedWeights,
    PolicyWeights,
    StoredWeights,
)
from dynalign_trainer.models.folder import adapter_rank, check_weights, context_window, load_tokenizer
from dynalign_trainer.models.merging import is_adapter
from dynalign_trainer.models.requests import Requests
from dynalign_trainer.models.sampler import Sample, Sampler
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.machine import count_gpus
from dynalign_trainer.runtime.progress import Watch
from dynalign_trainer.runtime.telemetry import Telemetry
from dynalign_trainer.runtime.useful_time import Useful


@dataclass(frozen=True)
class Likelihood:
    """How a given continuation follows its context."""

    logprob: float
    """Log-probability of the whole continuation, natural logarithm."""
    greedy: bool
    """Whether every token is the likeliest at its place."""


class Engine:
    """A running vLLM engine with the base model and any number of LoRA adapters. Made by `start_engine`."""

    def __init__(
        self,
        llm: Any,
        chat: ChatTemplate,
        max_length: int,
        weights: PolicyWeights,
        telemetry: Telemetry | None = None,
        *,
        slots: int | None = None,
    ) -> None:
        """`telemetry` learns when the model is asked, and how long that takes."""
        self.chat = chat
        self.max_length = max_length
        """Context window in tokens, prompt and completion together."""
        self.slots = slots
        """Sequences that run side by side, on a GPU; None where groups must be alone to be the same to the last bit."""
        self.cached_tokens = 0
        """Prompt tokens so far that were found in the prefix cache and not computed again."""
        self._llm = llm
        self._weights = weights
        self._telemetry = telemetry
        self._useful: Useful = nullcontext if telemetry is None else telemetry.useful.span

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.chat.tokenizer

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

    @contextmanager
    def sampler(self, policy: Policy) -> Iterator[Sampler]:
        """Draw completions by this policy; the engine does nothing else meanwhile."""
        with self._requests(policy) as requests:
            yield Sampler(requests, open_detokenizer(self.tokenizer), policy, self._useful)

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
        from vllm import SamplingParams

        wanted = list(token_ids)
        self.check_lengths(prompts, 1)
        params = SamplingParams(
            temperature=1.0,
            max_tokens=1,
            logprob_token_ids=wanted,
            detokenize=False,
            skip_reading_prefix_cache=not share_prefixes,
        )
        finished = [request.outputs[0] for request in self._run(prompts, [params] * len(prompts), policy, watch)]
        scores = [[output.logprobs[0][token].logprob for token in wanted] for output in finished]
        refuse_nan((value for row in scores for value in row), policy)
        return scores

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
        from vllm import SamplingParams

        texts = [[*context, *continuation] for context, continuation in zip(contexts, continuations, strict=True)]
        self.check_lengths(texts, 1)
        params = SamplingParams(temperature=1.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        finished = self._run(texts, [params] * len(texts), policy, watch)
        likelihoods = [
            _as_likelihood(continuation, request.prompt_logprobs[len(context) :])
            for context, continuation, request in zip(contexts, continuations, finished, strict=True)
        ]
        refuse_nan((likelihood.logprob for likelihood in likelihoods), policy)
        return likelihoods

    def for_stage(self, telemetry: Telemetry) -> "Engine":
        """This engine for the next stage of a rollout, which finds no prefixes of the stage before it in the cache."""
        self.forget_prefixes()
        return Engine(self._llm, self.chat, self.max_length, self._weights, telemetry, slots=self.slots)

    def forget_prefixes(self) -> None:
        """Empty the prefix cache, so that what follows does not depend, in its last bits, on what came before."""
        self._llm.reset_prefix_cache()

    def check_lengths(self, prompts: Sequence[Sequence[int]], reserve: int) -> None:
        """Raise BadInputError naming the index of a prompt that leaves no room for `reserve` more tokens."""
        for index, prompt in enumerate(prompts):
            if not 0 < len(prompt) <= self.max_length - reserve:
                raise BadInputError(
                    f"prompt {index} of {len(prompts)} has {len(prompt)} tokens, and {reserve} more are to follow, but "
                    f"the context window has {self.max_length}. Raise engine.maxLength or lower generation.maxTokens."
                )

    def _run(
        self, prompts: Sequence[Sequence[int]], params: Sequence[Any], policy: Policy, watch: Watch | None
    ) -> list[Any]:
        """One vLLM RequestOutput for each prompt, in order; what is under way is given up when `watch` raises."""
        if not prompts:
            return []
        with self._requests(policy) as requests, self._useful():
            requests.add(prompts, params)
            while True:
                ended = requests.step()
                if watch is not None:
                    watch(requests.ended, len(prompts), requests.rate)
                if ended:
                    return ended[0][1]

    @contextmanager
    def _requests(self, policy: Policy) -> Iterator[Requests]:
        with Requests(self._llm, self._weights.activate(policy), self._telemetry) as requests:
            try:
                yield requests
            finally:
                self.cached_tokens += requests.cached_tokens


def start_engine(context: StageContext[Any], policies: Sequence[Policy], *, only_reads: bool = False) -> Engine:
    """Start vLLM with the input "model" and these policies; in a rollout once, with those of all its stages.

    `only_reads`: this stage asks for single tokens, so that an engine of its own need not be fast at writing. Raises
    BadInputError when the model or a policy cannot be used, saying which and why.
    """
    session = context.session
    if session is None:
        return _start(context, policies, only_reads=only_reads)
    if session.engine is None:
        session.engine = engine = _start(context, session.policies)
        return engine
    running: Engine = session.engine
    return running.for_stage(context.telemetry)


def _start(context: StageContext[Any], policies: Sequence[Policy], *, only_reads: bool = False) -> Engine:
    prepare_environment()
    folder = context.input(Input.MODEL)
    check_weights(folder)
    settings = context.config.engine
    max_length = context_window(folder, settings.max_length)
    chat = ChatTemplate(load_tokenizer(folder), context.config.chat)
    found = {policy.version: context.policy_folder(policy) for policy in policies}
    paths = {version: path for version, path in found.items() if path is not None}
    if BASE_POLICY in paths:
        raise BadConfigError(f"the policy {BASE_POLICY!r} has an adapter; give it the version of its iteration")
    adapters = [path for path in paths.values() if is_adapter(path)]
    if adapters and len(adapters) < len(paths):
        raise BadConfigError(
            "some of the policies are adapters and some are whole models. spec.training.method cannot change within a "
            "run: set it back, or start a new run."
        )
    rank = adapter_rank(adapters) if adapters else None
    lora = Lora(max_rank=rank, count=len(adapters)) if rank is not None else None
    context.telemetry.phases.end(Phase.READING)
    on_gpu = count_gpus() > 0
    arguments = engine_arguments(
        folder,
        settings,
        max_length,
        lora=lora,
        on_gpu=on_gpu,
        only_reads=only_reads,
        has_weights=len(adapters) == len(paths),
    )
    llm = start_llm(arguments)
    weights = _open_weights(llm, folder, paths, are_adapters=bool(adapters))
    context.telemetry.phases.end(Phase.ENGINE)
    slots = int(llm.llm_engine.vllm_config.scheduler_config.max_num_seqs) if on_gpu else None
    return Engine(llm, chat, max_length, weights, context.telemetry, slots=slots)


def _open_weights(llm: Any, base: Path, paths: Mapping[str, Path], *, are_adapters: bool) -> PolicyWeights:
    """Whole models are read where they lie; adapters share batches on a GPU and are merged on a CPU."""
    if not paths:
        return BaseWeights()
    if not are_adapters:
        return StoredWeights(llm, base, paths)
    return AdapterWeights(llm, base, paths) if count_gpus() else MergedWeights(llm, base, paths)


def _as_likelihood(ids: Sequence[int], positions: Sequence[Mapping[int, Any]]) -> Likelihood:
    """Convert vLLM's entries at the continuation's positions; the given token is always among them, with its rank."""
    given = [position[token] for token, position in zip(ids, positions, strict=True)]
    return Likelihood(sum(entry.logprob for entry in given), all(entry.rank == 1 for entry in given))
