"""The page about scaling shows what the estimate says today: its tables are calculated, and its sentences hold."""

import re

import pytest

from support.goldens import Goldens
from support.pages import ROOT
from support.published import Figure, figures
from support.scaling_tables import DAY_CASES, RUN_CASES, bench_scale, erlang_wait, limits_table, tables

PAGE = ROOT / "docs" / "scaling.md"
TABLE = re.compile(r"<!-- table: (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)


def test_every_table_is_what_the_estimate_says(goldens: Goldens) -> None:
    calculated = tables()
    if goldens.update:
        PAGE.write_text(
            TABLE.sub(lambda m: f"<!-- table: {m[1]} -->\n{calculated[m[1]]}\n<!-- end -->", PAGE.read_text())
        )
    shown = {name: text.strip() for name, text in TABLE.findall(PAGE.read_text())}
    assert shown == calculated, "run pytest --update-goldens on this file, and read the page's sentences again"


def test_the_sentences_about_single_runs_hold() -> None:
    text = " ".join(PAGE.read_text().split())
    cases = {case.name: case for case in RUN_CASES}
    eight, wide, fast = (cases[name] for name in ("8B on 8", "70B on 64", "70B on 16"))
    rows = {row.split("|")[1].strip(): row for row in text.replace("| |", "|\n|").splitlines() if row.count("|") > 8}
    apart, own = (rows[name].split("|") for name in ("8B on 8, rollout: Separate", "8B on 8"))
    assert eight.estimate().iteration_seconds < 4 * 60, "what colocated frameworks take, and a little more"
    assert wide.estimate().run_seconds > fast.estimate().run_seconds
    iteration, starts, work = (cell.strip().removesuffix(" min") for cell in own[3:6])
    longer = apart[3].strip().removesuffix(" min")
    sentences = (f"{iteration} minutes, of which {starts} are starts", f"takes {longer}", f"against {work} minutes of")
    for sentence in (*sentences, "337 GiB", "5.4 TiB"):
        assert sentence in text
    assert eight.read_bytes / 2**30 == pytest.approx(337, rel=0.01)
    assert fast.read_bytes / 2**40 == pytest.approx(5.4, rel=0.03)


def test_the_file_service_is_full_first_in_every_column() -> None:
    rows = [row for row in limits_table().splitlines() if "**" in row]
    assert len(rows) == 1
    assert rows[0].startswith("| a file service")
    assert rows[0].count("**") == 2 * len(DAY_CASES)


def test_the_figures_of_the_operator_are_those_of_the_benchmark() -> None:
    assert bench_scale().keys() == {"milliseconds", "jobs_per_second", "active"}
    text = " ".join(PAGE.read_text().split())
    assert f"{bench_scale()['jobs_per_second']:g} Jobs a second on 2 cores" in text
    assert f"{bench_scale()['milliseconds']:g} ms of CPU a Job" in text


@pytest.mark.parametrize("figure", figures(), ids=lambda figure: f"{figure.source}, {figure.what}, {figure.unit}")
def test_a_published_figure_comes_out_at_its_size(figure: Figure) -> None:
    assert 0.4 < figure.ratio < 2.5


@pytest.mark.parametrize(("servers", "load", "wait"), [(1, 0.5, 1.0), (1, 0.9, 9.0), (2, 0.5, 1 / 3)])
def test_the_wait_in_a_queue_is_erlang_s(servers: int, load: float, wait: float) -> None:
    """M/M/1: load / (1 - load). M/M/2: load^2 / (1 - load^2)."""
    assert erlang_wait(servers, load) == pytest.approx(wait)
