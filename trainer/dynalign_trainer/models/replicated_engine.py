"""Several engines that one stage feeds: data parallel within a pod (`engine.replicas`).

vLLM's own data parallelism is made for servers: `vllm.LLM` refuses it in one process, and `AsyncLLM` sends each request
to the engine that seems to have the fewest and begins to compute while requests still arrive. Here prompts that share a
beginning go to the same engine. On a CPU a call, or a group of a sampler, goes to one engine as a whole, so that its
numbers are those of a single engine to the last bit.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dynalign_contract.config import Policy
from dynalign_contract.errors import EngineLostError
from dynalign_contract.phases import Phase
from dynalign_contract.settings import EngineSettings
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.dealing import deal_prompts, filled
from dynalign_trainer.models.device_shares import Share, share_cores, share_gpus
from dynalign_trainer.models.engine import Engine, Likelihood
from dynalign_trainer.models.engine_plan import EnginePlan
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.models.replica_messages import Answer, Call, Forget, GiveUp, Method, Open, Progress
from dynalign_trainer.models.replicas import Replicas, prepare_replicas, start_replicas
from dynalign_trainer.models.replicated_sampler import ReplicatedSampler
from dynalign_trainer.models.sampler import Sampler
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.machine import count_cores, count_gpus
from dynalign_trainer.runtime.progress import Watch
from dynalign_trainer.runtime.telemetry import Telemetry


class ReplicatedEngine(Engine):
    """Engines that are alike, in processes of their own."""

    def __init__(self, replicas: Replicas, chat: ChatTemplate, max_length: int, telemetry: Telemetry) -> None:
        """`telemetry` learns when the engines are asked, and how long that takes."""
        super().__init__(chat, max_length, slots=replicas.slots)
        self._replicas, self._telemetry = replicas, telemetry
        self._cached_before = replicas.cached_tokens

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens so far that were found in a prefix cache and not computed again."""
        return self._replicas.cached_tokens - self._cached_before

    @contextmanager
    def sampler(self, policy: Policy) -> Iterator[Sampler]:
        """Draw completions by this policy; the engines do nothing else meanwhile."""
        everyone = range(len(self._replicas))
        with self._order(everyone) as number:
            self._replicas.send_all(Open(number, policy))
            yield ReplicatedSampler(self._replicas, number, self._telemetry)
            self._replicas.send_all(GiveUp(number))
            self._collect(number, everyone)

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
        self.check_lengths(prompts, 1)
        shared = {"token_ids": list(token_ids), "policy": policy, "share_prefixes": share_prefixes}
        return self._ask(Method.SCORE_NEXT, prompts, lambda piece: {"prompts": prompts[piece], **shared}, watch)

    def score_continuations(
        self,
        contexts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        *,
        policy: Policy,
        watch: Watch | None = None,
    ) -> list[Likelihood]:
        """Log-probability of each continuation after its context, as `Engine.score_continuations` says."""
        texts = [[*context, *continuation] for context, continuation in zip(contexts, continuations, strict=True)]
        self.check_lengths(texts, 1)

        def arguments(piece: slice) -> dict[str, Any]:
            return {"contexts": contexts[piece], "continuations": continuations[piece], "policy": policy}

        return self._ask(Method.SCORE_CONTINUATIONS, texts, arguments, watch)

    def for_stage(self, telemetry: Telemetry) -> "ReplicatedEngine":
        """These engines for the next stage of a rollout, which finds no prefixes of the stage before it in a cache."""
        self.forget_prefixes()
        return ReplicatedEngine(self._replicas, self.chat, self.max_length, telemetry)

    def forget_prefixes(self) -> None:
        """Empty the prefix caches."""
        self._replicas.send_all(Forget())

    def _ask(
        self,
        method: Method,
        prompts: Sequence[Sequence[int]],
        arguments: Callable[[slice], dict[str, Any]],
        watch: Watch | None,
    ) -> list[Any]:
        """One value for each prompt, in order; `arguments` are the method's for a piece of them."""
        if not prompts:
            return []
        is_whole = self.slots is None  # on a CPU last bits depend on what is computed together
        pieces = [slice(0, len(prompts))] if is_whole else deal_prompts(prompts, len(self._replicas))
        asked = [index for index, _ in filled(pieces)]
        with self._order(asked) as number, self._telemetry.useful.span():
            for index, piece in filled(pieces):
                self._replicas.send(index, Call(number, method, arguments(piece)))
            answers = self._collect(number, asked, watch, len(prompts))
        return [value for index in asked for value in answers[index]]

    @contextmanager
    def _order(self, asked: Sequence[int]) -> Iterator[int]:
        """The number of an order to some of the engines, which is given up where the block raises."""
        number = self._replicas.next_number()
        try:
            yield number
        except EngineLostError:
            raise  # the stage ends, and the other engines with it
        except BaseException:
            for index in asked:
                self._replicas.send(index, GiveUp(number))
            raise

    def _collect(
        self, number: int, asked: Sequence[int], watch: Watch | None = None, total: int = 0
    ) -> dict[int, list[Any]]:
        """The answers to an order by engine. Raises the error of an engine, and what `watch` raises."""
        answers: dict[int, list[Any]] = {}
        progress = dict.fromkeys(asked, Progress(number, 0, 0.0))
        while len(answers) < len(asked):
            for index, reply in self._replicas.replies(number):
                self._telemetry.phases.once(Phase.FIRST_STEP)
                if isinstance(reply, Progress):
                    progress[index] = reply
                elif isinstance(reply, Answer):
                    answers[index] = reply.value
            if watch is not None:
                watch(sum(one.ended for one in progress.values()), total, sum(one.rate for one in progress.values()))
        return answers


def start_replicated_engine(plan: EnginePlan, context: StageContext[Any]) -> ReplicatedEngine:
    """Start the engines of a plan, each in a process of its own.

    Raises as the start of a single engine does, BadConfigError where there are too few GPUs, EngineLostError where a
    process ends, TerminatedError on SIGTERM.
    """
    chat = ChatTemplate(load_tokenizer(plan.model), plan.chat)
    context.telemetry.phases.end(Phase.READING)
    replicas = start_replicas(plan, _shares(plan.settings), context.check_stop)
    return ReplicatedEngine(replicas, chat, plan.max_length, context.telemetry)


def prepare_processes(settings: EngineSettings) -> None:
    """Start the processes of the engines, which import their libraries and wait for the plan.

    Raises BadConfigError where there are too few GPUs.
    """
    prepare_replicas(_shares(settings))


def _shares(settings: EngineSettings) -> list[Share]:
    if gpus := count_gpus():
        return share_gpus(settings, gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return share_cores(settings, sorted(os.sched_getaffinity(0)), count_cores())
