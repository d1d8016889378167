"""A vLLM engine in the stage's own process.

It is driven step by step, so that progress is known and SIGTERM is obeyed between two steps. Requests enter in order
before the first step, which makes the batches, and with them every last bit of the log-probabilities on a CPU, a
function of the call alone (given `forget_prefixes`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from dynalign_contract.config import Policy
from dynalign_contract.phases import Phase
from dynalign_trainer.models.broken_numbers import refuse_nan
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.detokenizing import open_detokenizer
from dynalign_trainer.models.engine import Engine, Likelihood
from dynalign_trainer.models.engine_plan import EnginePlan
from dynalign_trainer.models.engine_start import engine_arguments, start_llm
from dynalign_trainer.models.engine_weights import (
    AdapterWeights,
    BaseWeights,
    MergedWeights,
    PolicyWeights,
    StoredWeights,
)
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.models.requests import Requests
from dynalign_trainer.models.sampler import Sampler, VllmSampler
from dynalign_trainer.runtime.ending import keep
from dynalign_trainer.runtime.machine import count_gpus
from dynalign_trainer.runtime.progress import Watch
from dynalign_trainer.runtime.telemetry import Telemetry
from dynalign_trainer.runtime.useful_time import Useful


class VllmEngine(Engine):
    """A running `vllm.LLM` with the base model and any number of LoRA adapters."""

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
        super().__init__(chat, max_length, slots=slots)
        self._llm = llm
        self._weights = weights
        self._telemetry = telemetry
        self._useful: Useful = nullcontext if telemetry is None else telemetry.useful.span
        self._cached_tokens = 0

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens so far that were found in the prefix cache and not computed again."""
        return self._cached_tokens

    @contextmanager
    def sampler(self, policy: Policy) -> Iterator[Sampler]:
        """Draw completions by this policy; the engine does nothing else meanwhile."""
        with self._requests(policy) as requests:
            yield VllmSampler(requests, open_detokenizer(self.tokenizer), policy, self._useful, slots=self.slots)

    def score_next(
        self,
        prompts: Sequence[Sequence[int]],
        token_ids: Sequence[int],
        *,
        policy: Policy,
        share_prefixes: bool = True,
        watch: Watch | None = None,
    ) -> list[list[float]]:
        """Log-probabilities of exactly these tokens as the next one, as `Engine.score_next` says."""
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
        """Log-probability of each continuation after its context, as `Engine.score_continuations` says."""
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

    def for_stage(self, telemetry: Telemetry) -> "VllmEngine":
        """This engine for the next stage of a rollout, which finds no prefixes of the stage before it in the cache."""
        self.forget_prefixes()
        return VllmEngine(self._llm, self.chat, self.max_length, self._weights, telemetry, slots=self.slots)

    def forget_prefixes(self) -> None:
        """Empty the prefix cache, so that what follows does not depend, in its last bits, on what came before."""
        self._llm.reset_prefix_cache()

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
                self._cached_tokens += requests.cached_tokens


def start_vllm_engine(plan: EnginePlan, telemetry: Telemetry | None = None) -> VllmEngine:
    """Start vLLM in this process. Raises as `start_llm`, and BadInputError for a policy that does not fit the model."""
    chat = ChatTemplate(load_tokenizer(plan.model), plan.chat)
    if telemetry is not None:
        telemetry.phases.end(Phase.READING)
    on_gpu = count_gpus() > 0
    arguments = engine_arguments(
        plan.model,
        plan.settings,
        plan.max_length,
        lora=plan.lora,
        on_gpu=on_gpu,
        only_reads=plan.only_reads,
        has_weights=plan.begins_with_base,
    )
    llm = start_llm(arguments)
    keep(llm)
    weights = _open_weights(llm, plan.model, plan.policies, are_adapters=plan.lora is not None)
    slots = int(llm.llm_engine.vllm_config.scheduler_config.max_num_seqs) if on_gpu else None
    return VllmEngine(llm, chat, plan.max_length, weights, telemetry, slots=slots)


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
