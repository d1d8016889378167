"""MLflow by its REST API: a parent run for the run, a nested one for each iteration; each is there once.

What has been logged is asked from the server: runs are found by the tag `dynalign.id`, and a nested run that is
FINISHED is complete. A stage that was killed in the middle writes the rest the next time, with the same times, so that
a number that is sent twice is stored once.

The API: https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import httpx

from dynalign_contract.errors import BadConfigError, StageError
from dynalign_contract.run_facts import RunFacts
from dynalign_contract.settings import MLFLOW_ENDPOINT, MlflowSettings
from dynalign_trainer.endpoints.complaints import Refusal
from dynalign_trainer.endpoints.refusals import TRANSIENT, Address, EndpointError, refusal_error
from dynalign_trainer.endpoints.server import Server, find_reach
from dynalign_trainer.endpoints.transport import AnswerTooLongError
from dynalign_trainer.report.numbers import IterationNumbers, flat_configuration

_ID: Final = "dynalign.id"
_ITERATION: Final = "dynalign.iteration"
_PARENT: Final = "mlflow.parentRunId"
_MOST_METRICS: Final = 1000
_MOST_OTHERS: Final = 100
_HOST_REFUSED: Final = "Invalid Host header"
"""How MLflow from 3.5 on refuses a name that it does not know."""
_STATUS: Final = {"Succeeded": "FINISHED", "Failed": "FAILED"}

Answer = Mapping[str, Any]


@dataclass
class MlflowServer(Server):
    """An MLflow tracking server."""

    def invalid_response(self, problem: str, said: str = "") -> StageError:
        """What to raise for an answer that is none of MLflow's."""
        words = f" It begins: {said}" if said else ""
        return EndpointError(
            f"{self.address.url} does not answer as an MLflow server does: {problem}. Check {self.address.field}.url."
            f"{words}"
        )

    async def call(self, client: httpx.AsyncClient, method: str, path: str, **fields: Any) -> Answer | None:
        """The answer of one request, after retries; None where what it names does not exist.

        Raises EndpointError or BadConfigError.
        """
        return await self.retry(partial(self._try, client, method, path, fields))

    async def _try(self, client: httpx.AsyncClient, method: str, path: str, fields: Answer) -> Answer | None:
        url = f"{self.settings.url.rstrip('/')}/api/2.0/mlflow/{path}"
        body: dict[str, Any] = {"json": fields} if method == "POST" else {"params": fields}
        try:
            response = await self.ask(client, method, url, **body)
        except AnswerTooLongError as error:
            raise self.invalid_response("its answer is too long") from error
        if response.status == httpx.codes.OK:
            return self._parse(response.body)
        refusal = self.without_key(Refusal(response.status, _message_of(response.body)))
        if refusal.status == httpx.codes.NOT_FOUND and b"RESOURCE_DOES_NOT_EXIST" in response.body:
            return None
        if refusal.status == httpx.codes.FORBIDDEN and refusal.message.startswith(_HOST_REFUSED):
            raise self._host_refused()
        explanation = refusal_error(self.address, refusal, None)
        raise self.postpone(response, refusal, explanation) if refusal.status in TRANSIENT else explanation

    def _host_refused(self) -> StageError:
        """What to raise for a server that accepts some names only: by default not that of a Service."""
        name = httpx.URL(self.address.url).netloc.decode("ascii")
        return BadConfigError(
            f"{self.address.url} accepts no requests by the name {name} (status 403: {_HOST_REFUSED}). Start MLflow "
            f"with `--allowed-hosts {name}`, or list the name in its variable MLFLOW_SERVER_ALLOWED_HOSTS."
        )

    def _parse(self, body: bytes) -> Answer:
        try:
            found = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise self.invalid_response(str(error), self.quote(body[:200].decode("utf-8", "replace"))) from error
        if not isinstance(found, dict):
            raise self.invalid_response("it is no JSON object")
        return found


def log_run(
    settings: MlflowSettings,
    identity: str,
    facts: RunFacts,
    iterations: Sequence[IterationNumbers],
    environment: Mapping[str, str],
) -> None:
    """Bring the server up to date with a run that it knows by `identity`. Raises EndpointError or BadConfigError."""
    sends_key = settings.api_key_secret_ref is not None
    address = Address(MLFLOW_ENDPOINT, settings.url, settings.experiment, sends_key=sends_key)
    reach = find_reach(address, settings, environment)
    server = MlflowServer(settings, address, reach.key, reach.open)

    async def log(client: httpx.AsyncClient) -> None:
        try:
            await _Logger(server, client, settings.experiment, identity, facts).log(iterations)
        except (KeyError, TypeError, IndexError) as error:
            raise server.invalid_response(f"{type(error).__name__} {error} in its answer") from error

    asyncio.run(server.gather([log]))


@dataclass
class _Logger:
    """Writes one run."""

    server: MlflowServer
    client: httpx.AsyncClient
    experiment: str
    identity: str
    facts: RunFacts

    async def log(self, iterations: Sequence[IterationNumbers]) -> None:
        """The parent, each iteration that is not complete, and how the run stands."""
        experiment = await self._experiment()
        known = await self._runs(experiment)
        parent = next((run for run in known if _ITERATION not in _tags(run)), None)
        if parent is None:
            parent = await self._create(experiment, self.facts.name, {})
        await self._add_parameters(parent)
        nested = {_tags(run)[_ITERATION]: run for run in known if _ITERATION in _tags(run)}
        for numbers in iterations:
            run = nested.get(str(numbers.index))
            if run is None or run["info"]["status"] != "FINISHED":
                await self._log_iteration(experiment, parent, run, numbers)
        await self._finish(parent)

    async def _log_iteration(
        self, experiment: str, parent: Answer, run: Answer | None, numbers: IterationNumbers
    ) -> None:
        """Write the numbers into the parent, where they are a curve, and into the nested run; its end comes last."""
        if run is None:
            tags = {_ITERATION: str(numbers.index), _PARENT: parent["info"]["run_id"]}
            run = await self._create(experiment, f"iteration {numbers.index}", tags)
        await self._log(parent, metrics=_metrics(numbers, parent))
        references = {f"dynalign.artifact.{stage}": digest for stage, digest in numbers.artifacts.items()}
        await self._log(run, metrics=_metrics(numbers, run), tags=references)
        await self._update(run, "FINISHED")

    async def _experiment(self) -> str:
        found = await self._call("GET", "experiments/get-by-name", experiment_name=self.experiment)
        if found is not None:
            return str(found["experiment"]["experiment_id"])
        made = await self._must("POST", "experiments/create", name=self.experiment)
        return str(made["experiment_id"])

    async def _runs(self, experiment: str) -> list[Answer]:
        """Every run of the server that was made for this run, the parent too."""
        found: list[Answer] = []
        page: dict[str, Any] = {}
        while True:
            answer = await self._must(
                *("POST", "runs/search"),
                experiment_ids=[experiment],
                filter=f"tags.`{_ID}` = '{self.identity}'",
                max_results=500,
                **page,
            )
            found += answer.get("runs", [])
            if not answer.get("next_page_token"):
                return found
            page = {"page_token": answer["next_page_token"]}

    async def _create(self, experiment: str, name: str, tags: Mapping[str, str]) -> Answer:
        made = await self._must(
            *("POST", "runs/create"),
            experiment_id=experiment,
            run_name=name,
            start_time=_now(),
            tags=_pairs({_ID: self.identity, "dynalign.run": self.facts.name, **tags}),
        )
        run: Answer = made["run"]
        return run

    async def _add_parameters(self, parent: Answer) -> None:
        """The specification's values; those that the server has stay, for parameters cannot be changed there."""
        known = {entry["key"] for entry in parent["data"].get("params", [])}
        values = {key: value for key, value in flat_configuration(self.facts.configuration).items() if key not in known}
        await self._log(parent, params=_pairs(values))

    async def _finish(self, parent: Answer) -> None:
        """How the run stands, and where its report is."""
        await self._log(parent, tags={"dynalign.progress": self.facts.progress, "dynalign.best": self.facts.best})
        await self._update(parent, _STATUS.get(self.facts.phase, "RUNNING"))

    async def _update(self, run: Answer, status: str) -> None:
        ended = {} if status == "RUNNING" else {"end_time": _now()}
        await self._must("POST", "runs/update", run_id=run["info"]["run_id"], status=status, **ended)

    async def _log(
        self,
        run: Answer,
        *,
        metrics: Sequence[Answer] = (),
        params: Sequence[Answer] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Metrics, parameters and tags in batches as large as the server takes."""
        pairs = _pairs({name: text for name, text in (tags or {}).items() if text})
        batches: list[dict[str, Any]] = [
            *({"metrics": metrics[i : i + _MOST_METRICS]} for i in range(0, len(metrics), _MOST_METRICS)),
            *({"params": params[i : i + _MOST_OTHERS]} for i in range(0, len(params), _MOST_OTHERS)),
            *({"tags": pairs[i : i + _MOST_OTHERS]} for i in range(0, len(pairs), _MOST_OTHERS)),
        ]
        for batch in batches:
            await self._must("POST", "runs/log-batch", run_id=run["info"]["run_id"], **batch)

    async def _must(self, method: str, path: str, **fields: Any) -> Answer:
        answer = await self._call(method, path, **fields)
        if answer is None:
            raise self.server.invalid_response(f"{path} says that what dynalign has just made does not exist")
        return answer

    async def _call(self, method: str, path: str, **fields: Any) -> Answer | None:
        return await self.server.call(self.client, method, path, **fields)


def _metrics(numbers: IterationNumbers, run: Answer) -> list[Answer]:
    """The iteration's metrics at its step, with a time that is the same whenever they are sent: the server's own
    record of when the run began."""
    begun = int(run["info"]["start_time"])
    return [
        {"key": name, "value": value, "timestamp": begun, "step": numbers.index}
        for name, value in numbers.metrics.items()
    ]


def _pairs(values: Mapping[str, str]) -> list[Answer]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _tags(run: Answer) -> dict[str, str]:
    return {entry["key"]: entry["value"] for entry in run["data"].get("tags", [])}


def _message_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])[:400]
    except (ValueError, KeyError, TypeError, RecursionError):
        return body[:200].decode("utf-8", "replace")


def _now() -> int:
    return int(time.time() * 1000)
