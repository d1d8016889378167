"""The page as a text: everything is in it, what models wrote is data, nothing asks a network, and it stays small."""

import base64
import hashlib
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dynalign_contract.estimate import Estimate
from dynalign_contract.goodput import DeviceTime, DeviceUnit, Goodput
from dynalign_contract.metrics import EvaluateMetrics
from dynalign_report.charts import SPECS, build_charts
from dynalign_report.embedding import embed_rows, interleave
from dynalign_report.facts import Candidate, ConditionFacts, Group, ReportedRun, RunFacts
from dynalign_report.findings import Tone, build_findings
from dynalign_report.folder import read_reported_run
from dynalign_report.page import MAX_BYTES, build_page
from dynalign_report.rows import MAX_TEXT, group_rows
from support.builders import T0
from support.report_runs import WorkFolder, a_work_folder, data_of, rows_in

FACTS = RunFacts(name="r", phase="Succeeded")
PLOTS = "globalThis.Plotly = {};"


def page_of(*runs: ReportedRun) -> str:
    return build_page(runs, "2026-01-01 00:00 UTC", PLOTS)


def read(folder: WorkFolder, root: Path, facts: RunFacts = FACTS) -> ReportedRun:
    return read_reported_run(folder.write(root), facts, folder.name)


class Elements(HTMLParser):
    """Start tags of a page with their attributes, and the texts of the scripts that run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._runs = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if (tag, attrs) == ("script", []):
            self.scripts.append("")
            self._runs = True

    def handle_endtag(self, tag: str) -> None:
        self._runs = False

    def handle_data(self, data: str) -> None:
        if self._runs:
            self.scripts[-1] += data


def test_the_cost_says_what_the_devices_were_used_for_where_that_is_known(tmp_path: Path) -> None:
    seconds = DeviceTime(reserved=1000, useful=420, starting=300, waiting=200, wasted=80)
    goodput = Goodput(unit=DeviceUnit.GPU, share=0.42, wall_share=0.3, seconds=seconds, since=T0, until=T0)
    told = page_of(read(a_work_folder(), tmp_path / "counted", FACTS.model_copy(update={"goodput": goodput})))
    cells = ["GPU", "42%", "16:40 min", "7:00 min", "5:00 min", "3:20 min", "1:20 min", "0.0 s", "30%"]
    assert "".join(f"<td>{cell}</td>" for cell in cells) in told
    assert "Goodput" not in page_of(read(a_work_folder(), tmp_path / "not counted"))


def test_the_rows_of_the_page_are_those_of_the_run(tmp_path: Path) -> None:
    made = a_work_folder()
    page = page_of(read(made, tmp_path))
    (entry,) = data_of(page)["runs"]
    assert [one["iteration"] for one in entry["iterations"]] == [0, 1]
    rows = rows_in(page, entry["iterations"][1]["chunk"])
    assert {row["id"] for row in rows} == {made.prompt_id(1, number) for number in range(made.prompts)}
    assert {candidate["t"] for row in rows for candidate in row["c"]} == {
        f"Answer {k} to How can I {n}?" for k in range(2) for n in range(3)
    }
    held_out = rows_in(page, entry["heldOut"]["chunk"])
    assert [row["a"][-1]["i"] for row in held_out] == [1, 1, 1]
    assert held_out[-1]["id"] == "heldout-00000"  # the one whose answer changed least


def test_the_page_answers_every_question(tmp_path: Path) -> None:
    page = page_of(read(a_work_folder(), tmp_path))
    titles = {chart["title"] for chart in data_of(page)["charts"]}
    assert {
        "Held-out win rate against the base model",
        "Training reward by aspect",
        "KL divergence",
        "Entropy of the policy",
        "Real answers against worthless ones and attacks",
        "Time by stage",
    } <= titles
    for anchor in ("worked", "why", "judge", "changed", "cost", "lineage"):
        assert f'<section id="{anchor}"' in page
        assert f'href="#{anchor}"' in page
    assert "0.600 (0.500 to 0.700)" in page
    assert "1:01 min" in page


HOSTILE = [
    "</script><script>globalThis.hit = 1</script>",
    "<img src=x onerror='globalThis.hit = 1'>",
    "<!-- <script>",
    "]]></script>&lt;b&gt;",
    "{{ 7 * 7 }}{% raw %}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_models_write_never_becomes_an_element(tmp_path: Path, text: str) -> None:
    plain = Elements(page_of(read(a_work_folder(), tmp_path / "plain")))
    facts = RunFacts(
        name="r",
        phase="Failed",
        conditions=(ConditionFacts(type="Stalled", status="True", reason="Why", message=text),),
        configuration=text,
    )
    made = read(a_work_folder().answering(text).thinking(text), tmp_path / "hostile", facts)
    page = page_of(ReportedRun(text, facts, made.stages, made.groups, made.held_out, (text,)))
    found = Elements(page)
    assert [tag for tag, _ in found.tags].count("script") == [tag for tag, _ in plain.tags].count("script")
    assert [tag for tag, _ in found.tags].count("img") == 0
    assert found.scripts == plain.scripts
    assert "49" not in re.findall(r"<h1>.*?</h1>", page, re.DOTALL)[0]
    assert rows_in(page, "groups-0-0")[0]["c"][0]["t"].startswith(text)


def test_hidden_characters_of_a_text_are_named(tmp_path: Path) -> None:
    page = page_of(read(a_work_folder().answering("pay \u202e001\u2066 \x1b[2J\x00"), tmp_path))
    assert rows_in(page, "groups-0-0")[0]["c"][0]["t"].startswith("pay ⟨U+202E⟩001⟨U+2066⟩ ⟨U+001B⟩[2J⟨U+0000⟩")
    label = ReportedRun("a\u202eb", FACTS, ())
    assert "a⟨U+202E⟩b" in page_of(label)
    assert "\u202e" not in page_of(label)


def test_an_answer_of_100_kb_is_cut_and_says_so(tmp_path: Path) -> None:
    page = page_of(read(a_work_folder().answering("x" * 100_000), tmp_path))
    text, length = rows_in(page, "groups-0-0")[0]["c"][0]["t"]
    assert text == "x" * MAX_TEXT
    assert length > 100_000


def test_the_policy_of_the_page_admits_its_own_scripts_alone() -> None:
    page = page_of(ReportedRun("r", FACTS, ()))
    found = Elements(page)
    (policy,) = [a["content"] or "" for tag, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"]
    (script,) = found.scripts
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, PLOTS)]
    assert policy.split("; ") == [
        "default-src 'none'",
        "script-src " + " ".join(f"'sha256-{digest}'" for digest in digests),
        "style-src 'unsafe-inline'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_nothing_in_the_page_names_an_address(tmp_path: Path) -> None:
    found = Elements(page_of(read(a_work_folder(), tmp_path)))
    addresses = [value for _, attrs in found.tags for name, value in attrs.items() if name in ("src", "href")]
    assert all(address is not None and address.startswith("#") for address in addresses)
    assert "http://" not in found.scripts[0]
    assert "https://" not in found.scripts[0]


def test_several_runs_are_side_by_side(tmp_path: Path) -> None:
    runs = [read(a_work_folder().named(name), tmp_path / name) for name in ("first", "second")]
    page = page_of(*runs)
    data = data_of(page)
    (rates,) = [chart for chart in data["charts"] if chart["title"].startswith("Held-out win rate")]
    assert [line["label"] for line in rates["lines"]] == ["first", "second"]
    assert [run["label"] for run in data["runs"]] == ["first", "second"]
    (time,) = [chart for chart in data["charts"] if chart["title"] == "Time, all stages"]
    assert [(line["label"], line["y"]) for line in time["lines"]] == [("first", [244, 244]), ("second", [244, 244])]
    assert rows_in(page, data["runs"][1]["heldOut"]["chunk"])


def test_a_report_of_no_run_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        page_of()


@pytest.mark.parametrize(
    ("rate", "tone", "words"),
    [
        (Estimate(value=0.7, low=0.6, high=0.8), Tone.GOOD, "beats"),
        (Estimate(value=0.3, low=0.2, high=0.4), Tone.BAD, "loses"),
        (Estimate(value=0.55, low=0.45, high=0.65), Tone.OPEN, "Not shown"),
        (Estimate(value=0.9), Tone.OPEN, "may be chance"),
    ],
)
def test_a_win_rate_counts_by_its_interval(tmp_path: Path, rate: Estimate, tone: Tone, words: str) -> None:
    run = read(a_work_folder(), tmp_path)
    metrics = tuple(
        (metric.model_copy(update={"value": value}))
        for entry in run.stages
        if entry.iteration == 1
        for metric in entry.metrics
        for definition, value in EvaluateMetrics.win_rate.split(rate).items()
        if definition.name == metric.name
    )
    (stage,) = [entry for entry in run.stages if (entry.stage, entry.iteration) == (EvaluateMetrics.stage, 1)]
    only = stage.model_copy(update={"metrics": metrics})
    (finding,) = build_findings(ReportedRun("r", FACTS, (only,)))
    assert finding.tone is tone
    assert words in finding.sentence


def test_every_chart_is_of_one_unit_and_has_a_label_for_each_metric() -> None:
    for spec in (spec for spec in SPECS if spec.metrics):
        assert len(spec.names) in (0, len(spec.metrics)), spec.title
    assert build_charts([ReportedRun("r", FACTS, ())]) == ()


def test_rows_that_find_no_room_are_left_out_and_counted() -> None:
    texts = [random.Random(seed).randbytes(500).hex() for seed in range(20)]
    small = embed_rows([{"t": text} for text in texts], 4000)
    assert 0 < small.rows < small.of == 20
    assert len(small.data) <= 4000
    whole = embed_rows([{"t": text} for text in texts], 100_000)
    assert whole.rows == 20


def test_telling_groups_come_first() -> None:
    def group(name: str, *rewards: float) -> Group:
        return Group(name, (), tuple(Candidate(i, "", reward=reward) for i, reward in enumerate(rewards)))

    rows = group_rows([group("dull", 0.5, 0.5), group("spread", 0.1, 0.8), group("best", 0.9, 1.0)])
    assert [row["id"] for row in rows][:2] == ["spread", "best"]
    assert interleave([[1, 2], [2, 3], []]) == [1, 2, 3]


@pytest.mark.slow
def test_ten_iterations_of_512_prompts_with_8_candidates_stay_below_15_mb() -> None:
    words = [random.Random(seed).randbytes(4).hex() for seed in range(4000)]
    rng = random.Random(0)

    def group(iteration: int, number: int) -> Group:
        answers = tuple(
            Candidate(
                k, " ".join(rng.choices(words, k=150)), reward=rng.random(), advantage=0.1, aspects={"power": 4.0}
            )
            for k in range(8)
        )
        return Group(f"{iteration:03d}-{number:05d}", (("user", " ".join(rng.choices(words, k=20))),), answers)

    groups = {iteration: tuple(group(iteration, number) for number in range(512)) for iteration in range(10)}
    page = build_page([ReportedRun("r", FACTS, (), groups)], "now", "x" * 4_900_000)
    entries = data_of(page)["runs"][0]["iterations"]
    assert len(page.encode()) <= MAX_BYTES
    assert all(64 <= entry["rows"] < entry["of"] == 512 for entry in entries)
