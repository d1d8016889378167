"""The live page in a real Chromium, on working folders: what people see, search and follow, and that nothing leaves it."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from dynalign_contract.stages import Stage
from dynalign_operator.api.approvals import Decision, parse_request
from dynalign_operator.clusters.local.approving import read_decision
from dynalign_operator.clusters.local.workdir import Workdir, locked, write_run
from support.browser import open_chromium
from support.builders import a_run
from support.live_runs import LiveRun, a_live_run, with_bundled_model
from support.opened_page import PATIENCE, PHONE, WIDE, Opened, Scheme
from support.report_runs import a_work_folder
from support.ui_pages import open_list, open_run
from support.ui_server import UiServer, start_ui

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror='globalThis.hit=1'></script><script>globalThis.hit=1</script> \u202egnp.exe"
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with open_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, one that failed, one that was stopped, and one whose texts are an attack."""
    root = tmp_path_factory.mktemp("ui") / "runs"
    a_live_run("finished", root / "finished", with_bundled_model()).finished().saying("the end")
    a_live_run("failed", root / "failed", a_run().with_policy(retries=0)).until(Stage.JUDGE, 1).failing(12)
    a_live_run("stopped", root / "stopped").until(Stage.JUDGE, 1)
    a_work_folder().named("hostile").failed(HOSTILE, Stage.JUDGE).write(root / "hostile")
    return root


@pytest.fixture(scope="module")
def server(runs: Path) -> Iterator[UiServer]:
    with start_ui(cwd=runs.parent) as started:
        yield started


def open_local(browser: Browser, server: UiServer, name: str, width: int = WIDE, scheme: Scheme = "light") -> Opened:
    return open_run(browser, server, f"local:runs/{name}", width, scheme)


def draw_all(page: Page) -> None:
    """Scroll through the page until every plot is drawn."""
    for plot in page.locator("[data-plot]:visible").all():
        plot.scroll_into_view_if_needed(timeout=PATIENCE)
        expect(plot.locator("svg.main-svg").first).to_be_attached()


def assert_clean(opened: Opened, server: UiServer) -> None:
    """No complaint, no request to anyone but the page's own server, and nothing wider than the window."""
    assert opened.complaints == []
    assert {urlsplit(url).netloc for url in opened.requests if url != "data:,"} == {f"127.0.0.1:{server.port}"}
    assert opened.overflow <= 0


@pytest.mark.parametrize(("width", "scheme"), [(WIDE, "light"), (WIDE, "dark"), (PHONE, "light"), (PHONE, "dark")])
def test_list_and_runs_are_whole_in_every_width_and_theme(
    chromium: Browser, server: UiServer, width: int, scheme: Scheme
) -> None:
    opened = open_list(chromium, server, width, scheme)
    assert_clean(opened, server)
    assert opened.serious_findings == ""
    opened.page.close()
    for name in ("finished", "failed"):
        opened = open_local(chromium, server, name, width, scheme)
        draw_all(opened.page)
        assert opened.page.locator("[data-plot] .scatterlayer path.point").count() > 10
        assert opened.serious_findings == ""
        assert_clean(opened, server)
        opened.page.close()


def test_the_address_loses_its_token_and_a_reload_needs_none(chromium: Browser, server: UiServer) -> None:
    page = open_list(chromium, server).page
    assert page.url == f"{server.origin}/"
    page.reload()
    expect(page.locator(".entry")).to_have_count(4)
    stranger = chromium.new_page()
    answer = stranger.goto(f"{server.origin}/")
    assert answer is not None
    assert answer.status == 401
    expect(stranger.locator("body")).to_contain_text("its token is missing")
    stranger.close()
    page.close()


def test_the_list_is_searched_and_filtered(chromium: Browser, server: UiServer) -> None:
    page = open_list(chromium, server).page
    expect(page.locator(".status")).to_have_text("4 runs")
    assert page.locator(".entry-name a").first.inner_text() == "stopped"
    page.get_by_role("button", name="Failed 2").click()
    expect(page.locator(".status")).to_have_text("2 of 4 runs")
    expect(page.get_by_role("button", name="Failed 2")).to_have_attribute("aria-pressed", "true")
    page.get_by_label("Search").fill("unfit")
    expect(page.locator(".entry")).to_have_count(1)
    expect(page.locator(".entry")).to_contain_text("Failed (Unfit)")
    expect(page.locator(".entry .to-do")).to_contain_text("Remove the cause")
    page.get_by_label("Search").fill("nothing of the kind")
    expect(page.locator(".entry")).to_have_count(0)
    page.get_by_label("Search").fill("")
    page.get_by_role("button", name="All 4").click()
    page.get_by_role("link", name="finished").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("finished")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.go_back()
    expect(page.locator(".entry")).to_have_count(4)
    page.go_forward()
    page.get_by_role("link", name="All runs").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Runs")
    page.close()


def test_the_theme_is_the_systems_until_one_is_chosen(chromium: Browser, server: UiServer) -> None:
    page = open_local(chromium, server, "finished", scheme="dark").page
    page.wait_for_selector("[data-plot] .xtick text", state="attached")
    paper = "getComputedStyle(document.body).backgroundColor"
    ink = "document.querySelector('[data-plot] .xtick text').style.fill"
    dark = page.evaluate(paper), page.evaluate(ink)
    page.get_by_role("button", name="Theme").click()
    page.wait_for_function(f"{ink} !== '{dark[1]}'")
    assert page.evaluate(paper) != dark[0]
    page.close()


def test_a_failed_run_says_first_what_is_to_be_done(chromium: Browser, server: UiServer) -> None:
    page = open_local(chromium, server, "failed").page
    notice = page.locator("main > section").first
    expect(notice).to_contain_text("The run failed in judge of iteration 1")
    expect(notice).to_contain_text("Remove the cause and give dynalign run FILE again")
    expect(notice.locator("code").first).to_have_text("dynalign run FILE")
    expect(page.locator("#conditions .trouble").first).to_be_visible()
    expect(page.locator("#events .warning").first).to_be_visible()
    page.close()


def points(page: Page, title: str) -> int:
    return page.locator(f"[data-plot='{title}'] .scatterlayer path.point").count()


def test_a_run_that_works_is_seen_to_move_on(chromium: Browser, server: UiServer, runs: Path) -> None:
    """Plots grow, stages end, logs follow, and what was opened stays open."""
    live: LiveRun = a_live_run("works", runs / "works").until(Stage.TRAIN, 1).saying("step 1")
    with locked(Workdir(runs / "works")):
        opened = open_local(chromium, server, "works")
        page = opened.page
        title = "Held-out win rate against the base model"
        page.wait_for_selector(f"[data-plot='{title}'] svg.main-svg", state="attached")
        assert points(page, title) == 1
        first = page.locator(f"[data-plot='{title}']").element_handle()
        expect(page.locator(".said").first).to_contain_text("runs train of iteration 1")
        page.locator("#worked details summary").first.click()
        page.locator("#logs summary").click()
        log = page.get_by_role("log")
        expect(log).to_contain_text("step 1")
        live.saying("step 2 \x1b[31mred\x1b[0m")
        expect(log).to_contain_text("step 2 red")
        live.until(Stage.GENERATE, 3).saying("sampling")
        expect(page.locator(".said").first).to_contain_text("runs generate of iteration 3")
        page.wait_for_function(f"document.querySelectorAll(`[data-plot='{title}'] path.point`).length === 3")
        expect(page.locator("#worked tbody tr")).not_to_have_count(0)
        expect(page.locator("#worked details").first).to_have_attribute("open", "")
        expect(log.locator(".log-heading").last).to_contain_text("generate of iteration 3, attempt 1")
        expect(log).to_contain_text("sampling")
        assert first is not None
        assert first.evaluate("place => place.isConnected")  # the same plot, not another in its place
        live.finished()
        expect(page.locator("#meta .chip")).to_contain_text("Succeeded")
    expect(page.locator("#logs .status")).to_have_text("The log has ended.")
    assert_clean(opened, server)
    page.close()


def test_a_report_is_made_and_opens_beside_the_page(chromium: Browser, server: UiServer) -> None:
    page = open_local(chromium, server, "hostile").page
    page.get_by_role("button", name="Make the report").click()
    expect(page.locator("#told")).to_have_text("runs/hostile/report.html is up to date.")
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Report of").click()
    report = popup.value
    report.wait_for_selector("html[data-ready=yes]", state="attached", timeout=PATIENCE)
    expect(report.get_by_role("heading", level=1)).to_contain_text("hostile")
    assert report.evaluate("self.origin") == "null"
    assert report.evaluate("fetch('/api/runs').then(() => 'loaded', () => 'refused')") == "refused"
    report.close()
    page.close()


@pytest.mark.parametrize(("width", "scheme"), [(WIDE, "light"), (PHONE, "dark")])
def test_a_run_that_waits_is_rejected_with_a_reason(
    chromium: Browser, tmp_path: Path, width: int, scheme: Scheme
) -> None:
    root = tmp_path / "runs" / "waits"
    a_work_folder().of_size(1, 2, 2).named("waits").write(root)
    a_live_run("waits", root, a_run().with_policy(approval=["BeforeTrain"])).awaiting_approval()
    with start_ui(cwd=tmp_path) as started:
        opened = open_local(chromium, started, "waits", width, scheme)
        page, dialog = opened.page, opened.page.get_by_role("dialog")
        expect(page.locator(".part-approval")).to_contain_text("BeforeTrain: the judged answers that iteration 0")
        page.locator(".part-approval summary").click()
        expect(page.get_by_role("region", name="Sample")).to_contain_text("best")
        assert opened.serious_findings == ""
        page.get_by_role("button", name="Approve").click()
        dialog.get_by_role("button", name="Cancel").click()
        expect(dialog).to_be_hidden()
        page.get_by_role("button", name="Reject").click()
        dialog.get_by_role("button", name="Reject").click()
        expect(dialog).to_be_visible()  # a reason is required
        assert read_decision(Workdir(root)) is None
        dialog.get_by_label("Reason").fill("the answers flatter")
        dialog.get_by_role("button", name="Reject").click()
        expect(page.locator("#told")).to_contain_text("refused the judged answers")
        request = parse_request(read_decision(Workdir(root)) or "")
        assert (request.decision, request.reason) == (Decision.REJECTED, "the answers flatter")
        assert_clean(opened, started)
        page.close()


def test_texts_of_a_run_are_texts(chromium: Browser, server: UiServer) -> None:
    page = open_local(chromium, server, "hostile").page
    expect(page.locator("main")).to_contain_text("<img src=x onerror='globalThis.hit=1'>")
    assert "\u202e" not in page.locator("main").inner_text()
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("globalThis.hit") is None
    page.close()


def test_five_hundred_runs_are_listed_in_pages(chromium: Browser, tmp_path: Path) -> None:
    one = a_live_run("r", tmp_path / "runs" / "r000").finished()
    for number in range(1, 500):
        run = one.simulation.run
        metadata = run.metadata.model_copy(update={"name": f"r{number:03}"})
        workdir = Workdir(tmp_path / "runs" / metadata.name)
        workdir.root.mkdir()
        write_run(workdir, run.model_copy(update={"metadata": metadata}))
    with start_ui(cwd=tmp_path) as started:
        page = open_list(chromium, started).page
        expect(page.locator(".status")).to_have_text("500 runs")
        expect(page.locator(".entry")).to_have_count(50)
        page.get_by_role("button", name="Next").click()
        expect(page.locator(".position")).to_have_text("Page 2 of 10")
        page.get_by_label("Search").fill("r499")
        expect(page.locator(".entry")).to_have_count(1)
        expect(page.locator(".pages")).to_be_hidden()
        page.close()


def test_an_ended_server_is_said(chromium: Browser, runs: Path) -> None:
    with start_ui("runs", cwd=runs.parent) as started:
        page = open_list(chromium, started).page
        expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator("#banner")).to_contain_text("`dynalign ui` has ended")
    page.close()


def test_the_keyboard_reaches_everything(chromium: Browser, server: UiServer) -> None:
    page = open_local(chromium, server, "finished").page
    page.locator("body").press("Tab")
    seen: set[str] = set()
    for _ in range(60):
        seen.add(str(page.evaluate("document.activeElement.textContent.trim()")))
        page.keyboard.press("Tab")
    assert {"Skip to the runs", "Theme: system", "Logs"} <= seen
    assert any(text.startswith(("Make the report", "Report of")) for text in seen)
    page.close()
