"""The page's HTTP server: what a request may have, and what it gets."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from pydantic import ValidationError

from dynalign_contract.base import Model
from dynalign_contract.files import open_plain
from dynalign_contract.layout import RunLayout
from dynalign_contract.stages import Stage
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.run_source import LogSelection, RunNotFoundError
from dynalign_operator.ui.access import (
    FORM_HEADER,
    HEADERS,
    REPORT_POLICY,
    TOKEN_FIELD,
    Asked,
    Keys,
    cookie_name,
    opens,
    refuse,
)
from dynalign_operator.ui.files import Asset, render_page
from dynalign_operator.ui.list_views import ListQuery, build_list
from dynalign_operator.ui.log_stream import event, stream_lines
from dynalign_operator.ui.models import Answer, ChangeRequest, DecisionRequest, ReportRequest
from dynalign_operator.ui.places import Places, now
from dynalign_operator.ui.run_views import build_page

_MAX_REQUEST: Final = 8_192
_MAX_TAIL: Final = 5_000
_TAIL: Final = 500
_JSON: Final = "application/json"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PageServer:
    """Answers of one process. Nothing of a request is used as a path: keys are looked up among the runs there are."""

    def __init__(self, places: Places, assets: Mapping[str, Asset], keys: Keys) -> None:
        self._places, self._assets, self._keys = places, assets, keys
        self._used: set[str] = set()

    def application(self) -> web.Application:
        """The routes, behind the guard."""
        app = web.Application(middlewares=[self._guard], client_max_size=_MAX_REQUEST)
        app.router.add_get("/", self._page)
        app.router.add_get("/assets/{name}", self._asset)
        app.router.add_get("/api/runs", self._runs)
        app.router.add_get("/api/run", self._run)
        app.router.add_get("/api/logs", self._logs, allow_head=False)
        app.router.add_get("/report", self._report)
        app.router.add_post("/api/change", self._change)
        app.router.add_post("/api/approve", self._approve)
        app.router.add_post("/api/report", self._make_report)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        asked = _asked(request)
        refusal = refuse(asked, self._keys, opened=self._opens(asked))
        if refusal is not None:
            return web.Response(status=refusal.status, text=f"{refusal.sentence}\n", headers=HEADERS)
        try:
            answer = await handler(request)
        except web.HTTPException as error:
            error.headers.update(HEADERS)
            raise
        except ClusterError as error:
            status = HTTPStatus.NOT_FOUND if isinstance(error, RunNotFoundError) else HTTPStatus.CONFLICT
            answer = _json(Answer(message=str(error)), status)
        if not answer.prepared:
            answer.headers.update({**HEADERS, **answer.headers})
        return answer

    def _opens(self, asked: Asked) -> bool:
        """Whether a token of the address is good; that of the browser's start is good once."""
        if opens(asked, self._keys):
            return True
        once = Keys(token=self._keys.opening)
        if self._keys.opening in self._used or not opens(asked, once):
            return False
        self._used.add(self._keys.opening)
        return True

    async def _page(self, request: web.Request) -> web.Response:
        answer = web.Response(text=render_page(self._keys.form), content_type="text/html")
        answer.headers["Cache-Control"] = "no-store"
        name = cookie_name(_port(request))
        answer.set_cookie(name, self._keys.session, httponly=True, samesite="Strict", path="/")
        return answer

    async def _asset(self, request: web.Request) -> web.Response:
        asset = self._assets.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        return _tagged(request, asset.body, asset.tag, asset.media_type)

    async def _runs(self, request: web.Request) -> web.Response:
        fields = request.query
        page = fields.get("page", "1")
        query = ListQuery(fields.get("words", "")[:200], fields.get("phase", ""), int(page) if page.isdecimal() else 1)
        return _json(build_list(await self._places.runs(), query, now()))

    async def _run(self, request: web.Request) -> web.Response:
        return _json(build_page(await self._places.look(_key(request)), now()))

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        wanted, tail = _selection(request.query)
        lines = self._places.logs(_key(request), wanted, tail)
        answer = web.StreamResponse(
            headers={**HEADERS, "Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await answer.prepare(request)
        try:
            async for data in stream_lines(lines):
                await answer.write(data)
        except ClusterError as error:
            await answer.write(event("problem", str(error)))
        await answer.write(event("end", ""))
        return answer

    async def _report(self, request: web.Request) -> web.Response:
        seen = await self._places.look(_key(request))
        if seen.report.made_at is None:
            raise RunNotFoundError(seen.report.note or "there is no report of this run yet; its page makes one.")
        try:
            with open_plain(RunLayout(Path(seen.snapshot.place.files)).report) as file:
                body = file.read()
        except OSError as error:
            raise ClusterError(f"the report cannot be read: {error}.") from error
        headers = {"Content-Security-Policy": REPORT_POLICY, "Cache-Control": "no-store"}
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers=headers)

    async def _change(self, request: web.Request) -> web.Response:
        wish = await _body(request, ChangeRequest)
        return _json(Answer(message=await self._places.change(wish)))

    async def _approve(self, request: web.Request) -> web.Response:
        wish = await _body(request, DecisionRequest)
        return _json(Answer(message=await self._places.decide(wish)))

    async def _make_report(self, request: web.Request) -> web.Response:
        wish = await _body(request, ReportRequest)
        return _json(Answer(message=await self._places.make_report(wish.key)))


def _asked(request: web.Request) -> Asked:
    headers = request.headers
    return Asked(
        method=request.method,
        path=request.path,
        host=headers.get("Host", ""),
        origin=headers.get("Origin", ""),
        fetch_site=headers.get("Sec-Fetch-Site", ""),
        cookie=request.cookies.get(cookie_name(_port(request)), ""),
        token=request.query.get(TOKEN_FIELD, ""),
        form=headers.get(FORM_HEADER, ""),
    )


def _port(request: web.Request) -> int:
    """The port that this server listens on."""
    address: Any = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return int(address[1]) if address else 0


def _key(request: web.Request) -> str:
    return request.query.get("key", "")


def _selection(fields: Mapping[str, str]) -> tuple[LogSelection, int]:
    """Which logs are asked for; what makes no sense is as if it were not there."""
    stage, iteration, tail = (fields.get(name, "") for name in ("stage", "iteration", "tail"))
    chosen = Stage(stage) if stage in set(Stage) else None
    number = int(iteration) if iteration.isdecimal() else None
    return LogSelection(chosen, number), min(_MAX_TAIL, int(tail)) if tail.isdecimal() else _TAIL


async def _body(request: web.Request, model: type[Any]) -> Any:
    """The JSON of a request. Raises HTTPUnsupportedMediaType, HTTPBadRequest."""
    if request.content_type != _JSON:
        raise web.HTTPUnsupportedMediaType
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise web.HTTPBadRequest(text=f"{'.'.join(map(str, first['loc']))}: {first['msg']}\n") from error


def _json(value: Model, status: int = HTTPStatus.OK) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=value.to_json().encode(), status=status, content_type=_JSON, headers=headers)


def _tagged(request: web.Request, body: bytes, tag: str, media_type: str) -> web.Response:
    """The body, or only that it has not changed since the page had it."""
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("If-None-Match") == tag:
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    return web.Response(body=body, content_type=media_type, charset="utf-8", headers=headers)
