"""A server of rewards, asked by the protocol `dynalign.rewards/v1`."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import httpx
from pydantic import TypeAdapter, ValidationError

from dynalign_contract.endpoints import EndpointUse
from dynalign_contract.errors import BadConfigError, StageError
from dynalign_contract.reward_protocol import (
    PROTOCOL,
    RewardProtocols,
    RewardRequest,
    RewardResponse,
)
from dynalign_contract.settings import RewardEndpoint
from dynalign_trainer.endpoints.complaints import Refusal, read_refusal
from dynalign_trainer.endpoints.journal import AnswerJournal
from dynalign_trainer.endpoints.refusals import TRANSIENT, Address, EndpointError, refusal_error
from dynalign_trainer.endpoints.server import BudgetUsedUpError, Response, Server, TransientError, find_reach
from dynalign_trainer.endpoints.transport import LONGEST_ANSWER, AnswerTooLongError
from dynalign_trainer.verifiers.batches import BatchFailure, Values

GIVEN_UP_AFTER: Final = 8
"""Batches in a row that fail after all their retries; the rest of the stage's batches are not sent."""
_JSON: Final = {"Content-Type": "application/json"}
_ABOUT_ANYBODY: Final = frozenset({401, 402, 403})
"""Statuses that mean the same whatever a server serves."""
_VALUES: Final[TypeAdapter[Values]] = TypeAdapter(Values)


class _RefusedError(Exception):
    """A refusal that a repetition of the request would meet again."""

    def __init__(self, explanation: StageError) -> None:
        super().__init__(str(explanation))


@dataclass
class RewardServer(Server):
    """The server of one reward."""

    settings: RewardEndpoint
    journal: AnswerJournal[Values]
    _failed_in_a_row: int = field(default=0, kw_only=True)

    def score(self, requests: Sequence[RewardRequest], look: Callable[[], None]) -> list[Values | BatchFailure]:
        """The values of every batch, in order, or why there are none. `look` is called twice a second and may raise.

        What an earlier attempt was answered is taken from the journal. Raises BadConfigError for an address that is
        never asked.
        """
        return asyncio.run(self._score(requests, look))

    def probe(self, look: Callable[[], None]) -> None:
        """Make sure that the server speaks the protocol.

        Raises BadConfigError where the user must change something, EndpointError where it fails after all retries, and
        whatever `look` raises.
        """

        async def ask(client: httpx.AsyncClient) -> RewardProtocols:
            return await self.retry(partial(self._ask_protocols, client))

        try:
            (found,) = asyncio.run(self.gather([ask], lambda _done, _total, _rate: look()))
        except BudgetUsedUpError as error:
            raise EndpointError(f"{self.address.url} did not answer: {self.budget.exhausted_message()}.") from error
        except AnswerTooLongError as error:
            raise BadConfigError(self._too_long()) from error
        if PROTOCOL not in found.protocols:
            spoken = self.quote(", ".join(found.protocols)) or "none"
            raise BadConfigError(
                f"{self.address.url} does not speak {PROTOCOL}; it speaks: {spoken}. Name a server that does in "
                f"{self.address.field}.url."
            )

    async def _score(self, requests: Sequence[RewardRequest], look: Callable[[], None]) -> list[Values | BatchFailure]:
        places = asyncio.Semaphore(self.settings.concurrency)

        async def one(request: RewardRequest, client: httpx.AsyncClient) -> Values | BatchFailure:
            known = self.journal.find(self.settings.url, request.model_dump())
            if known is not None:
                return known
            async with places:
                return await self._answer(client, request)

        return await self.gather([partial(one, r) for r in requests], lambda _done, _total, _rate: look())

    async def _answer(self, client: httpx.AsyncClient, request: RewardRequest) -> Values | BatchFailure:
        if self._failed_in_a_row >= GIVEN_UP_AFTER:
            return BatchFailure(f"{self.address.url} is not asked any more: {GIVEN_UP_AFTER} batches in a row failed.")
        try:
            values = await self.retry(partial(self._try, client, request))
        except BudgetUsedUpError:
            return BatchFailure(f"{self.budget.exhausted_message()}.")
        except AnswerTooLongError:
            return self._fail(self._too_long())
        except (EndpointError, _RefusedError) as error:
            return self._fail(str(error))
        self._failed_in_a_row = 0
        self.journal.add(self.settings.url, request.model_dump(), values)
        return values

    def _fail(self, reason: str) -> BatchFailure:
        self._failed_in_a_row += 1
        return BatchFailure(reason)

    async def _try(self, client: httpx.AsyncClient, request: RewardRequest) -> Values:
        response = await self.ask(client, "POST", self.settings.url, content=request.encode(), headers=_JSON)
        refusal = read_refusal(response.status, response.body)
        if refusal is not None:
            explanation = self._explain(response, refusal)
            raise explanation if isinstance(explanation, TransientError) else _RefusedError(explanation)
        try:
            values = RewardResponse.model_validate_json(response.body).values
        except ValidationError as error:
            raise self.invalid_response(_describe(error), self._beginning(response)) from error
        if len(values) != len(request.items):
            raise self.invalid_response(f"{len(values)} values for {len(request.items)} items")
        return values

    async def _ask_protocols(self, client: httpx.AsyncClient) -> RewardProtocols:
        response = await self.ask(client, "GET", self.settings.url)
        refusal = read_refusal(response.status, response.body)
        if refusal is not None:
            raise self._explain(response, refusal)
        try:
            return RewardProtocols.model_validate_json(response.body)
        except ValidationError as error:
            problem, said = _describe(error), self._beginning(response)
            raise BadConfigError(self._no_answer_of_the_protocol(problem, said)) from error

    def invalid_response(self, problem: str, said: str = "") -> Exception:
        """A failure that may be repeated: a successful response that is none of the protocol."""
        return TransientError(EndpointError(self._no_answer_of_the_protocol(problem, said)))

    def _explain(self, response: Response, refusal: Refusal) -> StageError | TransientError:
        refusal = self.without_key(refusal)
        status = refusal.status
        if status in TRANSIENT:
            return self.postpone(response, refusal, refusal_error(self.address, refusal, None))
        if status in _ABOUT_ANYBODY or 300 <= status < 400:
            return refusal_error(self.address, refusal, None)
        said = f" It says: {refusal.message}" if refusal.message else ""
        return BadConfigError(
            f"{self.address.url} refuses a request of {PROTOCOL} with status {status}. {self._remedy()}{said}"
        )

    def _no_answer_of_the_protocol(self, problem: str, said: str) -> str:
        shown = f": {said!r}" if said else ""
        return f"{self.address.url} answers with something that is no answer of {PROTOCOL} ({problem}){shown}. " + (
            self._remedy()
        )

    def _too_long(self) -> str:
        return f"{self.address.url} answers with more than {LONGEST_ANSWER // 2**20} MiB. {self._remedy()}"

    def _remedy(self) -> str:
        return f"{self.address.field}.url must be the address of a server of rewards, as docs/rewards.md describes it."

    def _beginning(self, response: Response) -> str:
        return self.quote(response.body.decode("utf-8", "replace"))


def open_reward_server(
    use: EndpointUse, settings: RewardEndpoint, environment: Mapping[str, str], journal: Path
) -> RewardServer:
    """The server of a reward. Raises BadConfigError as `find_reach` does."""
    address = Address(use, settings.url, "", sends_key=settings.api_key_secret_ref is not None)
    reach = find_reach(address, settings, environment)
    return RewardServer(settings, address, reach.key, reach.open, AnswerJournal(journal, _VALUES))


def _describe(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])
