"""The page: values of runs in, one HTML text out. Nothing is read here but the page's own assets.

What models wrote reaches the page in two ways only: compressed as data that scripts set as text, or through the
template's escaping. The Content-Security-Policy admits the page's own scripts by their digests, and no request.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined

from dynalign_contract.plain_text import reveal_hidden
from dynalign_report.chart_data import chart_data
from dynalign_report.charts import Section, build_charts, stage_seconds
from dynalign_report.embedding import Embedded, embed_rows, embed_text
from dynalign_report.facts import ReportedRun, StageFacts
from dynalign_report.findings import Finding, build_findings
from dynalign_report.formats import FILTERS
from dynalign_report.rows import group_rows, held_out_rows

MAX_BYTES: Final = 15_000_000
"""Size that a report does not exceed."""
_RESERVED: Final = 3_000_000
"""For everything but the rows: the plotting library (2 MB), charts, tables, configuration."""
_HELD_OUT_SHARE: Final = 0.25
_SCRIPTS: Final = ("elements.js", "page.js", "plots.js", "charts.js", "samples.js")
_TEMPLATE: Final = "report.html.j2"


@dataclass(frozen=True)
class _Chunk:
    """Compressed rows under an id of the page."""

    id: str
    rows: Embedded


@dataclass(frozen=True)
class RunView:
    """One run as the template shows it."""

    run: ReportedRun
    findings: tuple[Finding, ...]
    stage_seconds: dict[Any, float]

    @property
    def message(self) -> str:
        """The condition's sentence that says why the run does not go on, or where it stands; empty for a success."""
        return condition_message(self.run)

    @property
    def producers(self) -> dict[str, str]:
        """Versions of the libraries that wrote the run's artifacts."""
        found: dict[str, str] = {}
        for entry in self.run.stages:
            found |= entry.producers
        return dict(sorted(found.items()))


def build_page(runs: Sequence[ReportedRun], made: str, plotting_library: str, version: str = "") -> str:
    """The report of one or several runs.

    `made` says when it was made, `plotting_library` is the source of plotly.js. Raises ValueError without runs.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    charts = build_charts(runs)
    chunks, index = _embed(runs)
    scripts = "\n".join(_asset(name) for name in _SCRIPTS)
    template = Environment(
        loader=FunctionLoader(_asset), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template.filters |= {**FILTERS, "shown": reveal_hidden}
    return template.get_template(_TEMPLATE).render(
        views=[RunView(run, build_findings(run), stage_seconds(run)) for run in runs],
        charts={section.value: [(i, c) for i, c in enumerate(charts) if c.section is section] for section in Section},
        data=_json_for_script({"charts": [chart_data(chart) for chart in charts], "runs": index}),
        chunks=chunks,
        plotly=embed_text(plotting_library),
        hashes=[_hash(scripts), _hash(plotting_library)],
        style=_asset("report.css"),
        scripts=scripts,
        made=made,
        version=version,
        stages=_all_stages(runs),
    )


def condition_message(run: ReportedRun) -> str:
    """What the run's conditions say where it has not succeeded; empty for a success."""
    if run.facts.phase == "Succeeded":
        return ""
    by_type = {condition.type: condition for condition in run.facts.conditions}
    stalled = by_type.get("Stalled")
    if stalled is not None and stalled.status == "True":
        return stalled.message
    told = [by_type[name] for name in ("Completed", "Progressing", "Ready") if name in by_type]
    return next((condition.message for condition in told if condition.message), "")


def _all_stages(runs: Sequence[ReportedRun]) -> list[tuple[str, StageFacts]]:
    return [(run.label, entry) for run in runs for entry in run.stages]


def _embed(runs: Sequence[ReportedRun]) -> tuple[list[_Chunk], list[dict[str, Any]]]:
    """Chunks of rows, and the index by which the scripts find them."""
    chunks: list[_Chunk] = []
    index: list[dict[str, Any]] = []
    room = MAX_BYTES - _RESERVED
    for number, run in enumerate(runs):
        share = room // (len(runs) - number)
        held_out = embed_rows(held_out_rows(run.held_out), int(share * _HELD_OUT_SHARE))
        room, share = room - len(held_out.data), share - len(held_out.data)
        chunks.append(_Chunk(f"held-out-{number}", held_out))
        entry: dict[str, Any] = {"label": run.label, "heldOut": _entry(chunks[-1]), "iterations": []}
        for position, (iteration, groups) in enumerate(run.groups.items()):
            rows = embed_rows(group_rows(groups), share // (len(run.groups) - position))
            room, share = room - len(rows.data), share - len(rows.data)
            chunks.append(_Chunk(f"groups-{number}-{iteration}", rows))
            entry["iterations"].append({"iteration": iteration, **_entry(chunks[-1])})
        index.append(entry)
    return chunks, index


def _entry(chunk: _Chunk) -> dict[str, Any]:
    return {"chunk": chunk.id, "rows": chunk.rows.rows, "of": chunk.rows.of}


def _json_for_script(value: Any) -> str:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return (resources.files("dynalign_report") / "assets" / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """Source expression of a script's text for a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
