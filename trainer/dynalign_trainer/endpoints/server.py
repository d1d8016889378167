"""A server that is asked by HTTP: several requests at a time, retries, a budget, and SIGTERM obeyed within a second."""

import asyncio
import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from dynalign_contract.addresses import FORBIDDEN_URL, LOOPBACK_URL, matches
from dynalign_contract.endpoints import KEY_IN_THE_CLEAR, ServerSettings, keeps_key
from dynalign_contract.errors import BadConfigError, StageError
from dynalign_trainer.endpoints.backoff import Backoff, retry_after
from dynalign_trainer.endpoints.budget import BudgetTracker
from dynalign_trainer.endpoints.complaints import Refusal
from dynalign_trainer.endpoints.redaction import quote_text, remove_key
from dynalign_trainer.endpoints.refusals import (
    Address,
    forbidden_address_error,
    retry_after_too_long_error,
    timeout_error,
    unreachable_error,
)
from dynalign_trainer.endpoints.transport import ForbiddenAddressError, in_a_pod, open_transport, read_answer
from dynalign_trainer.models.chat_model import Usage
from dynalign_trainer.runtime.progress import Watch

log = logging.getLogger("dynalign.endpoint")

_LOOK_EVERY_SECONDS: Final = 0.5
"""Seconds between two updates of the progress, and two looks for SIGTERM, while answers are awaited."""

T = TypeVar("T")


class BudgetUsedUpError(Exception):
    """Nothing more may be spent; the request was not sent."""


class TransientError(Exception):
    """A try that failed and may be repeated."""

    def __init__(self, explanation: StageError, asked: float | None = None) -> None:
        super().__init__(str(explanation))
        self.explanation = explanation
        self.asked = asked
        """Seconds that the server wants to be left alone for."""


@dataclass(frozen=True)
class Response:
    """A server's answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    """Decompressed, without the key."""


@dataclass
class Server(ABC):
    """A server in the service of one part of a run."""

    settings: ServerSettings
    address: Address
    key: str | None = field(repr=False)
    open: Callable[[], httpx.AsyncBaseTransport] = field(repr=False)
    """How the server is reached."""
    usage: Usage = field(default_factory=Usage, kw_only=True)
    backoff: Backoff = field(default_factory=Backoff, kw_only=True)

    @property
    def budget(self) -> BudgetTracker:
        """The budget with what has been spent of it."""
        return BudgetTracker(self.settings.budget, self.address.field, self.usage)

    async def gather(
        self, jobs: Sequence[Callable[[httpx.AsyncClient], Awaitable[T]]], watch: Watch | None = None
    ) -> list[T]:
        """The results of all jobs, in order; they share one client.

        Raises what the first job to fail raises, and whatever `watch` raises; the other jobs are then given up.
        """
        headers = {"Accept-Encoding": "identity"} | (
            {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        )
        started, before = time.monotonic(), self.usage.tokens
        async with httpx.AsyncClient(
            headers=headers, timeout=self.settings.timeout_seconds, transport=self.open(), trust_env=False
        ) as client:
            tasks = [asyncio.ensure_future(job(client)) for job in jobs]
            waiting = set(tasks)
            try:
                while waiting:
                    finished, waiting = await asyncio.wait(
                        waiting, timeout=_LOOK_EVERY_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in finished:
                        task.result()
                    if watch is not None:
                        rate = (self.usage.tokens - before) / max(time.monotonic() - started, 1e-9)
                        watch(len(tasks) - len(waiting), len(tasks), rate)
            finally:
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return [task.result() for task in tasks]

    async def retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of the first try that succeeds.

        Raises the explanation of the last TransientError after all retries, and at once whatever else `attempt` raises.
        """
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.settings.retries + 1),
            retry=retry_if_exception_type(TransientError),
            wait=self._wait,
            reraise=True,
        )
        try:
            return await retrying(attempt)
        except TransientError as error:
            raise error.explanation from error

    async def ask(self, client: httpx.AsyncClient, method: str, url: str, **body: Any) -> Response:
        """Send one request, which counts against the budget. `body` is httpx's `json` or `content`.

        Raises BudgetUsedUpError, TransientError, AnswerTooLongError, or BadConfigError for what only the user can mend.
        """
        if not self.budget.take_request():
            raise BudgetUsedUpError
        timeout = self.settings.timeout_seconds
        try:
            async with asyncio.timeout(timeout):
                return await self.send(client, method, url, **body)
        except ForbiddenAddressError as error:
            raise forbidden_address_error(self.address, str(error)) from error
        except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout) as error:
            raise TransientError(timeout_error(self.address, timeout)) from error
        except httpx.TransportError as error:
            reason = self.quote(str(error)) or type(error).__name__
            raise TransientError(unreachable_error(self.address, reason)) from error
        except ValueError as error:
            raise self.invalid_response(str(error)) from error

    async def send(self, client: httpx.AsyncClient, method: str, url: str, **body: Any) -> Response:
        """Send a request and read its answer, in which nothing is left of the key.

        Raises what httpx and `read_answer` raise.
        """
        async with client.stream(method, url, **body) as response:
            data = await read_answer(response)
            return Response(response.status_code, response.headers, remove_key(data, self.key))

    @abstractmethod
    def invalid_response(self, problem: str, said: str = "") -> Exception:
        """What to raise for a successful response that cannot be read; `said` is its beginning."""

    def without_key(self, refusal: Refusal) -> Refusal:
        """A refusal whose message holds nothing of the key."""
        return replace(refusal, message=self.quote(refusal.message))

    def postpone(self, response: Response, refusal: Refusal, explanation: StageError) -> StageError | TransientError:
        """What to raise where the same request may well succeed later: when the server asks for, if that is soon."""
        asked = retry_after(response.headers, datetime.now(UTC))
        if asked is not None and asked > self.backoff.patience:
            return retry_after_too_long_error(self.address, asked, refusal.status)
        return TransientError(explanation, asked)

    def quote(self, text: str) -> str:
        """What the server says, for a message, without the key."""
        return quote_text(text, self.key)

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.asked if isinstance(error, TransientError) else None
        seconds = self.backoff.seconds(state.attempt_number, random.random(), asked)  # noqa: S311 - jitter
        log.warning("%s; try %d follows in %.1f s", error, state.attempt_number + 1, seconds)
        return seconds


@dataclass(frozen=True)
class Reach:
    """How a server is reached, and with which key."""

    key: str | None = field(repr=False)
    open: Callable[[], httpx.AsyncBaseTransport] = field(repr=False)


def find_reach(address: Address, settings: ServerSettings, environment: Mapping[str, str]) -> Reach:
    """The way to a server, with the key from the environment when the settings name one.

    Raises BadConfigError when the key is missing or cannot be sent, or the address is none to ask; no message holds it.
    """
    reference = settings.api_key_secret_ref
    _check_url(address, environment)
    in_the_clear = reference is not None and not settings.url.lower().startswith("https")
    reach = partial(open_transport, settings.url, environment, in_the_clear=in_the_clear)
    if reference is None:
        return Reach(None, reach)
    use = address.use
    key = environment.get(use.variable, "").strip()
    if not key:
        raise BadConfigError(
            f"{use.field}.apiKeySecretRef asks for a key, but {use.variable} is not set. On this machine, export "
            f"{use.variable} before `dynalign run`; in a cluster, put it under {reference.key} into the Secret "
            f"{reference.name}."
        )
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise BadConfigError(
            f"the key in {use.variable} holds white space or characters that no HTTP header can carry. Put the bare "
            f"key under {reference.key} into the Secret {reference.name}."
        )
    return Reach(key, reach)


def _check_url(address: Address, environment: Mapping[str, str]) -> None:
    """Refuse what the URL itself gives away; what its name leads to is looked at when it is connected to."""
    url = address.url
    if matches(FORBIDDEN_URL, url):
        raise forbidden_address_error(address, "an address that no server of models or rewards has")
    if matches(LOOPBACK_URL, url) and in_a_pod(environment):
        raise forbidden_address_error(address, "the pod's own address")
    if address.sends_key and not keeps_key(url):
        raise BadConfigError(f"{address.field}.url {KEY_IN_THE_CLEAR}.")
