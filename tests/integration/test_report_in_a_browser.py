"""Reports in a real Chromium: what people see, search and read, and that no request ever leaves the page."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from typer.testing import CliRunner

from dynalign_contract.stages import Stage
from dynalign_operator.cli.main import app
from support.browser import open_chromium
from support.opened_page import PATIENCE, PHONE, WIDE, Opened, Scheme, open_page
from support.report_runs import a_work_folder

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror='globalThis.hit=1'></script><script>globalThis.hit=1</script> \u202egnp.exe"
expect.set_options(timeout=PATIENCE)


def draw_all(page: Page) -> None:
    """Scroll through the page until every plot is drawn."""
    for plot in page.locator("[data-chart]").all():
        plot.scroll_into_view_if_needed(timeout=PATIENCE)
        expect(plot.locator("svg.main-svg").first).to_be_attached()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with open_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports by name: a finished, a failed and a running run, one of hostile texts, and two side by side."""
    root = tmp_path_factory.mktemp("reports")
    runs = {
        "finished": a_work_folder().of_size(3, 6, 4).thinking("let me think").named("finished"),
        "failed": a_work_folder().named("failed").failed("The judge is unfit: change spec.judging.", Stage.JUDGE),
        "running": a_work_folder().named("running").running("train is running.", Stage.GENERATE),
        "hostile": a_work_folder().answering(HOSTILE).named("hostile"),
        "long": a_work_folder().answering("word " * 20_000).named("long"),
    }
    made = {name: [run.write(root / name)] for name, run in runs.items()}
    made["both"] = [*made["finished"], a_work_folder().of_size(2, 4, 2).named("second").write(root / "second")]
    files = {name: root / f"{name}.html" for name in made}
    for name, folders in made.items():
        result = CliRunner().invoke(app, ["report", *map(str, folders), "-o", str(files[name])])
        assert result.exit_code == 0, result.output
    return files


def open_report(browser: Browser, file: Path, width: int = WIDE, scheme: Scheme = "light") -> Opened:
    opened = open_page(browser, file.as_uri(), width, scheme)
    opened.page.wait_for_selector("html[data-ready=yes]", state="attached")
    return opened


@pytest.mark.parametrize("name", ["finished", "failed", "running", "hostile", "both"])
def test_every_report_is_whole_and_asks_for_nothing(chromium: Browser, reports: dict[str, Path], name: str) -> None:
    opened = open_report(chromium, reports[name])
    draw_all(opened.page)
    assert opened.complaints == []
    assert opened.requests == [reports[name].as_uri()]
    assert opened.overflow <= 0
    assert opened.page.locator("[data-chart]").count() > 3
    assert opened.page.locator("[data-chart] .scatterlayer path.point, [data-chart] .barlayer path").count() > 3
    opened.page.close()


@pytest.mark.parametrize("name", ["finished", "both"])
def test_a_phone_shows_all_of_it(chromium: Browser, reports: dict[str, Path], name: str) -> None:
    opened = open_report(chromium, reports[name], PHONE, "dark")
    draw_all(opened.page)
    assert opened.overflow <= 0
    for plot in opened.page.locator("[data-chart] svg.main-svg").all():
        box = plot.bounding_box()
        assert box is not None
        assert box["width"] <= PHONE
    opened.page.close()


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("finished", WIDE, "light"), ("finished", PHONE, "dark"), ("failed", WIDE, "dark"), ("both", WIDE, "light")],
)
def test_axe_finds_nothing_serious(
    chromium: Browser, reports: dict[str, Path], name: str, width: int, scheme: Scheme
) -> None:
    opened = open_report(chromium, reports[name], width, scheme)
    draw_all(opened.page)
    assert opened.serious_findings == ""
    opened.page.close()


def test_held_out_answers_are_searched_filtered_and_ordered(chromium: Browser, reports: dict[str, Path]) -> None:
    page = open_report(chromium, reports["finished"]).page
    browser = page.locator("#held-out")
    samples = browser.locator(".sample")
    expect(browser.locator(".status")).to_have_text("6 of 6 prompts")
    expect(samples.first.locator(".answer")).to_have_count(2)
    expect(samples.first.get_by_role("heading", name="After: iteration 2")).to_be_visible()
    browser.get_by_label("Answers of").select_option("iteration 0")
    expect(samples.first.get_by_role("heading", name="After: iteration 0")).to_be_visible()
    browser.get_by_label("Show").select_option("lost")
    expect(browser.locator(".status")).to_have_text("2 of 6 prompts")
    expect(samples.first).to_contain_text("lost against the base model")
    browser.get_by_label("Show").select_option("all prompts")
    browser.get_by_label("Order").select_option("by prompt")
    expect(samples.first.locator("h4")).to_contain_text("heldout-00000")
    browser.get_by_label("Order").select_option("worst first")
    expect(samples.first).to_contain_text("lost against the base model")
    browser.get_by_label("Search").fill("HOLD 3 can")
    expect(browser.locator(".status")).to_have_text("1 of 6 prompts")
    expect(samples.first).to_contain_text("How can I hold 3?")
    browser.get_by_label("Search").fill("nothing of the kind")
    expect(samples).to_have_count(0)
    page.close()


def test_candidates_stand_side_by_side_with_what_decided_their_reward(
    chromium: Browser, reports: dict[str, Path]
) -> None:
    page = open_report(chromium, reports["finished"]).page
    browser = page.locator("#candidates")
    browser.get_by_label("Order").select_option("best first")
    best = browser.locator(".sample").first
    expect(best.locator("h4")).to_contain_text("002-00005")
    cards = best.locator(".answer")
    expect(cards).to_have_count(4)
    tops = {round(card.bounding_box()["y"]) for card in cards.all()}  # type: ignore[index]
    assert len(tops) == 1
    expect(cards.nth(3)).to_contain_text("reward 0.769 · advantage +0.27 · cut off")
    expect(cards.nth(3)).to_contain_text("knowledge6.9")
    thought = cards.nth(3).locator("details.thought")
    expect(thought.get_by_text("let me think")).to_be_hidden()
    thought.locator("summary").click()
    expect(thought.get_by_text("let me think")).to_be_visible()
    expect(browser.locator(".position")).to_have_text("Page 1 of 2")
    browser.get_by_role("button", name="Next").press("Enter")
    expect(browser.locator(".position")).to_have_text("Page 2 of 2")
    expect(browser.locator(".sample")).to_have_count(2)
    browser.get_by_label("Iteration").select_option("iteration 0")
    expect(browser.locator(".sample").first.locator("h4")).to_contain_text("000-")
    page.close()


def test_the_theme_is_the_systems_until_one_is_chosen(chromium: Browser, reports: dict[str, Path]) -> None:
    page = open_report(chromium, reports["finished"], scheme="dark").page
    paper = "getComputedStyle(document.body).backgroundColor"
    ink = "document.querySelector('[data-chart] .xtick text').style.fill"
    page.wait_for_selector("[data-chart] .xtick text", state="attached")
    dark = page.evaluate(paper), page.evaluate(ink)
    button = page.get_by_role("button", name="Theme")
    button.click()
    expect(button).to_have_text("Theme: light")
    page.wait_for_function(f"{ink} !== {json.dumps(dark[1])}")
    assert page.evaluate(paper) != dark[0]
    button.click()
    expect(button).to_have_text("Theme: dark")
    page.wait_for_function(f"{ink} === {json.dumps(dark[1])}")
    assert page.evaluate(paper) == dark[0]
    page.close()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("failed", "The judge is unfit: change spec.judging."), ("running", "train is running.")],
)
def test_a_run_that_is_not_complete_says_so_first(
    chromium: Browser, reports: dict[str, Path], name: str, sentence: str
) -> None:
    page = open_report(chromium, reports[name]).page
    notice = page.locator("main > section").first
    expect(notice).to_contain_text(sentence)
    box = notice.bounding_box()
    assert box is not None
    assert box["y"] < 400
    page.close()


def test_runs_are_compared_side_by_side(chromium: Browser, reports: dict[str, Path]) -> None:
    page = open_report(chromium, reports["both"]).page
    columns = [box["y"] for run in page.locator(".run").all() if (box := run.bounding_box()) is not None]
    assert len(columns) == 2
    assert columns[0] == columns[1]
    expect(page.locator("#held-out .status")).to_have_text("6 of 6 prompts")
    page.locator("#held-out").get_by_label("Search").fill("hold 1")
    shared = page.locator("#held-out .sample").first
    expect(shared.get_by_role("heading", name="After: finished, iteration 2")).to_be_visible()
    expect(shared.get_by_role("heading", name="After: second, iteration 1")).to_be_visible()
    legend = page.locator("[data-chart] .legendtext")
    assert {"finished", "second"} <= set(legend.all_text_contents())
    page.close()


def test_texts_of_models_are_texts(chromium: Browser, reports: dict[str, Path]) -> None:
    page = open_report(chromium, reports["hostile"]).page
    shown = page.locator("#candidates .answer .text").first
    expect(shown).to_contain_text("<img src=x onerror='globalThis.hit=1'></script><script>globalThis.hit=1</script>")
    expect(shown).to_contain_text("⟨U+202E⟩gnp.exe")
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("globalThis.hit") is None
    page.close()


def test_an_answer_of_100_kb_scrolls_in_its_place(chromium: Browser, reports: dict[str, Path]) -> None:
    opened = open_report(chromium, reports["long"], PHONE)
    card = opened.page.locator("#candidates .answer").first
    expect(card).to_contain_text("First 20,000 of 100,0")
    box = card.bounding_box()
    assert box is not None
    assert box["height"] < 900
    assert opened.overflow <= 0
    opened.page.close()


def test_the_page_cannot_reach_a_server(chromium: Browser, reports: dict[str, Path]) -> None:
    asked: list[str] = []

    class Recorder(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    attempts = """async (address) => {
      const image = new Image();
      const style = document.createElement("link");
      const script = document.createElement("script");
      const frame = document.createElement("iframe");
      const ended = [image, style, script].map((one) => new Promise((done) => {
        one.onload = () => done("loaded");
        one.onerror = () => done("refused");
      }));
      image.src = `${address}/image`;
      style.rel = "stylesheet";
      style.href = `${address}/style`;
      script.src = `${address}/script`;
      frame.src = `${address}/frame`;
      document.head.append(style, script);
      document.body.append(frame);
      const fetched = fetch(`${address}/fetch`).then(() => "loaded", () => "refused");
      return Promise.all([...ended, fetched]);
    }"""
    try:
        plain = chromium.new_page()
        plain.goto(f"{address}/first")
        plain.close()
        assert "/first" in asked  # the server can be reached from this browser
        asked.clear()
        page = open_report(chromium, reports["finished"]).page
        assert page.evaluate(attempts, address) == ["refused"] * 4
        page.close()
    finally:
        server.shutdown()
    assert asked == []


def test_the_page_prints_with_every_plot_on_white(chromium: Browser, reports: dict[str, Path]) -> None:
    page = open_report(chromium, reports["finished"], scheme="dark").page
    assert page.locator("[data-drawn]").count() < page.locator("[data-chart]").count()
    data = page.pdf()
    assert data.startswith(b"%PDF")
    assert page.locator("[data-drawn]").count() == page.locator("[data-chart]").count()
    page.close()


def test_the_keyboard_reaches_everything(chromium: Browser, reports: dict[str, Path]) -> None:
    page = open_report(chromium, reports["finished"]).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.closest('#held-out') ? document.activeElement.tagName : ''"))
        if {"SELECT", "INPUT", "BUTTON"} <= seen:
            break
    assert {"SELECT", "INPUT"} <= seen
    page.close()
