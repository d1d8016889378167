"""The client of an OpenAI-compatible server."""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import httpx

from dynalign_contract.endpoints import EndpointSettings, EndpointUse
from dynalign_contract.errors import StageError
from dynalign_trainer.endpoints.complaints import Refusal, read_refusal
from dynalign_trainer.endpoints.completions import ChatRequest, Reply, parse_reply
from dynalign_trainer.endpoints.journal import Journal
from dynalign_trainer.endpoints.manners import Manners
from dynalign_trainer.endpoints.refusals import (
    TRANSIENT,
    Address,
    EndpointError,
    answer_too_long_error,
    invalid_response_error,
    refusal_error,
)
from dynalign_trainer.endpoints.server import (
    BudgetUsedUpError,
    Response,
    Server,
    TransientError,
    find_reach,
)
from dynalign_trainer.endpoints.transport import AnswerTooLongError
from dynalign_trainer.runtime.progress import Watch
from dynalign_trainer.runtime.useful_time import Useful

log = logging.getLogger("dynalign.endpoint")


@dataclass
class Endpoint(Server):
    """An OpenAI-compatible server in the service of one part of a run."""

    settings: EndpointSettings
    journal: Journal
    patience: int = field(default=0, kw_only=True)
    """Requests in a row that may fail after all their tries: they get no reply. With one more the error is raised."""
    failed: int = field(default=0, kw_only=True)
    """Requests in a row that have failed so."""
    useful: Useful = field(default=nullcontext, kw_only=True)
    """Makes a context for each batch of requests, in which the stage's time is useful."""

    def complete(self, requests: Sequence[ChatRequest], watch: Watch | None = None) -> list[Reply | None]:
        """An answer for every request, in order; None for those that the budget or `patience` left without one.

        What an earlier attempt has been answered already is taken from the journal and costs nothing.
        Raises BadConfigError or EndpointError saying what to do, and whatever `watch` raises; requests that are under
        way are then given up.
        """
        if not requests:
            return []
        with self.useful():
            return asyncio.run(self._complete(requests, watch))

    async def _complete(self, requests: Sequence[ChatRequest], watch: Watch | None) -> list[Reply | None]:
        places = asyncio.Semaphore(self.settings.concurrency)

        async def one(request: ChatRequest, client: httpx.AsyncClient) -> Reply | None:
            known = self.journal.find(self.settings.url, request.body(self.settings.model))
            if known is not None:
                return known
            async with places:
                return await self._answer(client, request)

        return await self.gather([partial(one, request) for request in requests], watch)

    async def _answer(self, client: httpx.AsyncClient, request: ChatRequest) -> Reply | None:
        try:
            reply = await self.retry(partial(self._try, client, request))
        except BudgetUsedUpError:
            return None
        except EndpointError as error:
            self.failed += 1
            if self.failed > self.patience:
                raise
            log.warning("%s; this request is left without an answer", error)
            return None
        self.failed = 0
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
                response = await self.ask(client, "POST", self._url("chat/completions"), json=body)
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

    def _parse(self, response: Response, request: ChatRequest) -> Reply:
        try:
            reply = parse_reply(response.body, request)
        except ValueError as error:
            said = self.quote(response.body.decode("utf-8", "replace"))
            raise self.invalid_response(str(error), said) from error
        self.usage.tokens += reply.cost
        self.usage.read += reply.read
        self.usage.cached += reply.cached
        return reply

    def invalid_response(self, problem: str, said: str = "") -> StageError:
        """What to raise for a successful response without a chat completion."""
        return invalid_response_error(self.address, problem, said)

    def _learn(self, learned: Manners) -> None:
        known = self.journal.manners(self.settings.url, self.settings.model)
        merged = known.merge(learned)
        if merged != known:
            log.warning("%s: %s", self.address.url, merged.describe(known))
            self.journal.learn(self.settings.url, self.settings.model, merged)

    async def _explain(
        self, client: httpx.AsyncClient, response: Response, refusal: Refusal
    ) -> StageError | TransientError:
        """What to raise for a refusal."""
        refusal = self.without_key(refusal)
        if refusal.status in TRANSIENT:
            return self.postpone(response, refusal, refusal_error(self.address, refusal, None))
        models = await self._list_models(client) if refusal.status == 404 else None
        return refusal_error(self.address, refusal, models)

    async def _list_models(self, client: httpx.AsyncClient) -> list[str] | None:
        """Names of the models at the server; None where it does not tell."""
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                response = await self.send(client, "GET", self._url("models"))
            found: Any = json.loads(response.body)
            models = [self.quote(str(model["id"])) for model in found["data"]]
        except (
            *(httpx.TransportError, AnswerTooLongError, TimeoutError),
            *(ValueError, KeyError, TypeError, RecursionError),
        ):
            return None
        return models if response.status == httpx.codes.OK else None

    def _url(self, path: str) -> str:
        return f"{self.settings.url.rstrip('/')}/{path}"


def open_endpoint(
    use: EndpointUse,
    settings: EndpointSettings,
    environment: Mapping[str, str],
    journal: Journal,
    *,
    useful: Useful = nullcontext,
) -> Endpoint:
    """The endpoint of a part of the run, with the key from the environment when the settings name one.

    Raises BadConfigError when the key is missing or cannot be sent; no message holds it.
    """
    address = Address(use, settings.url, settings.model, sends_key=settings.api_key_secret_ref is not None)
    reach = find_reach(address, settings, environment)
    return Endpoint(settings, address, reach.key, reach.open, journal, useful=useful)
