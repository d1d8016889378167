"""The client of one endpoint: several requests at a time, retries, a budget, and SIGTERM obeyed within a second."""

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from dynalign_contract.addresses import FORBIDDEN_URL, LOOPBACK_URL, matches
from dynalign_contract.endpoints import KEY_IN_THE_CLEAR, EndpointSettings, EndpointUse, keeps_key
from dynalign_contract.errors import BadConfigError, StageError
from dynalign_trainer.endpoints.backoff import Backoff, retry_after
from dynalign_trainer.endpoints.budget import BudgetTracker
from dynalign_trainer.endpoints.complaints import Refusal, read_refusal
from dynalign_trainer.endpoints.completions import ChatRequest, Reply, parse_reply
from dynalign_trainer.endpoints.journal import Journal
from dynalign_trainer.endpoints.manners import Manners
from dynalign_trainer.endpoints.redaction import quote_text, remove_key
from dynalign_trainer.endpoints.refusals import (
    TRANSIENT,
    Address,
    answer_too_long_error,
    forbidden_address_error,
    invalid_response_error,
    refusal_error,
    retry_after_too_long_error,
    timeout_error,
    unreachable_error,
)
from dynalign_trainer.endpoints.transport import (
    AnswerTooLongError,
    ForbiddenAddressError,
    in_a_pod,
    open_transport,
    read_answer,
)
from dynalign_trainer.models.chat_model import Usage
from dynalign_trainer.runtime.progress import Watch

log = logging.getLogger("dynalign.endpoint")

_LOOK_EVERY_SECONDS: Final = 0.5
"""Seconds between two updates of the progress, and two looks for SIGTERM, while answers are awaited."""


class _BudgetUsedUpError(Exception):
    """Nothing more may be spent; the request was not sent."""


class _TransientError(Exception):
    """A try that failed and may be repeated."""

    def __init__(self, explanation: StageError, asked: float | None = None) -> None:
        super().__init__(str(explanation))
        self.explanation = explanation
        self.asked = asked
        """Seconds that the server wants to be left alone for."""


@dataclass(frozen=True)
class _Response:
    """A server's answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    """Decompressed, without the key."""


@dataclass
class Endpoint:
    """An OpenAI-compatible server in the service of one part of a run."""

    settings: EndpointSettings
    address: Address
    key: str | None = field(repr=False)
    journal: Journal
    open: Callable[[], httpx.AsyncBaseTransport] = field(repr=False)
    """How the server is reached."""
    usage: Usage = field(default_factory=Usage)
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def budget(self) -> BudgetTracker:
        """The budget with what has been spent of it."""
        return BudgetTracker(self.settings.budget, self.address.field, self.usage)

    def complete(self, requests: Sequence[ChatRequest], watch: Watch | None = None) -> list[Reply | None]:
        """An answer for every request, in order; None for those that the budget did not allow.

        What an earlier attempt has been answered already is taken from the journal and costs nothing.
        Raises BadConfigError or EndpointError saying what to do, and whatever `watch` raises; requests that are under
        way are then given up.
        """
        return asyncio.run(self._complete(requests, watch)) if requests else []

    async def _complete(self, requests: Sequence[ChatRequest], watch: Watch | None) -> list[Reply | None]:
        headers = {"Accept-Encoding": "identity"} | (
            {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        )
        started, before = time.monotonic(), self.usage.tokens
        places = asyncio.Semaphore(self.settings.concurrency)
        async with httpx.AsyncClient(
            headers=headers, timeout=self.settings.timeout_seconds, transport=self.open(), trust_env=False
        ) as client:

            async def one(request: ChatRequest) -> Reply | None:
                known = self.journal.find(self.settings.url, request.body(self.settings.model))
                if known is not None:
                    return known
                async with places:
                    return await self._answer(client, request)

            tasks = [asyncio.create_task(one(request)) for request in requests]
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

    async def _answer(self, client: httpx.AsyncClient, request: ChatRequest) -> Reply | None:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.settings.retries + 1),
            retry=retry_if_exception_type(_TransientError),
            wait=self._wait,
            reraise=True,
        )
        try:
            reply: Reply = await retrying(self._try, client, request)
        except _TransientError as error:
            raise error.explanation from error
        except _BudgetUsedUpError:
            return None
        self.journal.add(self.settings.url, request.body(self.settings.model), reply)
        return reply

    async def _try(self, client: httpx.AsyncClient, request: ChatRequest) -> Reply:
        """One answer; what the server refuses to take is left out at once, which does not count as a try.

        Every repetition leaves out, or replaces, something that this body still held: there are as many as a request
        has parameters.
        """
        while True:
            manners = self.journal.manners(self.settings.url, self.settings.model)
            body = manners.apply(request.body(self.settings.model), self.settings.thought_tokens)
            try:
                response = await self._post(client, body)
            except AnswerTooLongError as error:
                shorter = manners.learn_shorter(body)
                if shorter is None:
                    raise answer_too_long_error(self.address) from error
                self._learn(shorter)
                continue
            refusal = read_refusal(response.status, response.body)
            if refusal is None:
                reply = self._parse(response, request)
                learned = replace(manners, thinks=True) if reply.cut_in_thought and not manners.thinks else None
            else:
                learned = manners.learn(body, refusal) if refusal.status in (400, 422) else None
            if learned is not None:
                self._learn(learned)
            elif refusal is None:
                return reply
            else:
                raise await self._explain(client, response, refusal)

    def _parse(self, response: _Response, request: ChatRequest) -> Reply:
        try:
            reply = parse_reply(response.body, request)
        except ValueError as error:
            said = self._quote(response.body.decode("utf-8", "replace"))
            raise invalid_response_error(self.address, str(error), said) from error
        self.usage.tokens += reply.cost
        self.usage.read += reply.read
        return reply

    def _learn(self, learned: Manners) -> None:
        known = self.journal.manners(self.settings.url, self.settings.model)
        merged = known.merge(learned)
        if merged != known:
            log.warning("%s: %s", self.address.url, merged.describe(known))
            self.journal.learn(self.settings.url, self.settings.model, merged)

    async def _explain(
        self, client: httpx.AsyncClient, response: _Response, refusal: Refusal
    ) -> StageError | _TransientError:
        """What to raise for a refusal."""
        refusal = replace(refusal, message=self._quote(refusal.message))
        if refusal.status in TRANSIENT:
            asked = retry_after(response.headers, datetime.now(UTC))
            if asked is not None and asked > self.backoff.patience:
                return retry_after_too_long_error(self.address, asked, refusal.status)
            return _TransientError(refusal_error(self.address, refusal, None), asked)
        models = await self._list_models(client) if refusal.status == 404 else None
        return refusal_error(self.address, refusal, models)

    async def _post(self, client: httpx.AsyncClient, body: Mapping[str, Any]) -> _Response:
        if not self.budget.take_request():
            raise _BudgetUsedUpError
        timeout = self.settings.timeout_seconds
        try:
            async with asyncio.timeout(timeout):
                return await self._send(client, "POST", "chat/completions", body)
        except ForbiddenAddressError as error:
            raise forbidden_address_error(self.address, str(error)) from error
        except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout) as error:
            raise _TransientError(timeout_error(self.address, timeout)) from error
        except httpx.TransportError as error:
            reason = self._quote(str(error)) or type(error).__name__
            raise _TransientError(unreachable_error(self.address, reason)) from error
        except ValueError as error:
            raise invalid_response_error(self.address, str(error), "") from error

    async def _list_models(self, client: httpx.AsyncClient) -> list[str] | None:
        """Names of the models at the server; None where it does not tell."""
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                response = await self._send(client, "GET", "models", None)
            found: Any = json.loads(response.body)
            models = [self._quote(str(model["id"])) for model in found["data"]]
        except (
            *(httpx.TransportError, AnswerTooLongError, TimeoutError),
            *(ValueError, KeyError, TypeError, RecursionError),
        ):
            return None
        return models if response.status == httpx.codes.OK else None

    async def _send(
        self, client: httpx.AsyncClient, method: str, path: str, body: Mapping[str, Any] | None
    ) -> _Response:
        """Send a request and read its answer, in which nothing is left of the key."""
        url = f"{self.settings.url.rstrip('/')}/{path}"
        async with client.stream(method, url, json=body) as response:
            data = await read_answer(response)
            return _Response(response.status_code, response.headers, remove_key(data, self.key))

    def _quote(self, text: str) -> str:
        return quote_text(text, self.key)

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.asked if isinstance(error, _TransientError) else None
        seconds = self.backoff.seconds(state.attempt_number, random.random(), asked)  # noqa: S311 - jitter
        log.warning("%s; try %d follows in %.1f s", error, state.attempt_number + 1, seconds)
        return seconds


def open_endpoint(
    use: EndpointUse, settings: EndpointSettings, environment: Mapping[str, str], journal: Journal
) -> Endpoint:
    """The endpoint of a part of the run, with the key from the environment when the settings name one.

    Raises BadConfigError when the key is missing or cannot be sent; no message holds it.
    """
    reference = settings.api_key_secret_ref
    address = Address(use, settings.url, settings.model, sends_key=reference is not None)
    _check_url(address, environment)
    in_the_clear = reference is not None and not settings.url.lower().startswith("https")
    reach = partial(open_transport, settings.url, environment, in_the_clear=in_the_clear)
    if reference is None:
        return Endpoint(settings, address, None, journal, reach)
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
    return Endpoint(settings, address, key, journal, reach)


def _check_url(address: Address, environment: Mapping[str, str]) -> None:
    """Refuse what the URL itself gives away; what its name leads to is looked at when it is connected to."""
    url = address.url
    if matches(FORBIDDEN_URL, url):
        raise forbidden_address_error(address, "an address that no server of models has")
    if matches(LOOPBACK_URL, url) and in_a_pod(environment):
        raise forbidden_address_error(address, "the pod's own address")
    if address.sends_key and not keeps_key(url):
        raise BadConfigError(f"{address.field}.url {KEY_IN_THE_CLEAR}.")
