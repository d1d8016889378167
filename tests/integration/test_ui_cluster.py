"""The live page on a real API server: runs of two namespaces, changes that a person confirms, and rights that are missing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from dynalign_contract.stages import Stage
from dynalign_operator.api.approvals import APPROVAL_ANNOTATION, Decision, parse_request
from lab.api_server import ApiServer, start_api_server
from support.approvals import TEAM, install_approvals, user
from support.browser import open_chromium
from support.cluster_runs import until
from support.live_runs import a_live_run, with_bundled_model
from support.opened_page import PATIENCE, PHONE, WIDE, Scheme
from support.player import run_object
from support.ui_pages import open_list, open_run
from support.ui_server import UiServer, start_ui

pytestmark = pytest.mark.cluster

MODEL = {"uri": "bundled://smollm2-135m-instruct"}
LOOKER = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "looker", "namespace": "team"},
    "rules": [{"apiGroups": ["dynalign.io"], "resources": ["alignmentruns"], "verbs": ["get", "list"]}],
}
BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "RoleBinding",
    "metadata": {"name": "looker", "namespace": "team"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "looker"},
    "subjects": [{"kind": "ServiceAccount", "name": "guest", "namespace": "team"}],
}
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with open_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """No operator works here: statuses are those that the planner has made of the runs."""
    with start_api_server(tmp_path_factory.mktemp("api-server") / "s") as started:
        started.kubectl("create", "namespace", "team")
        started.kubectl("create", "serviceaccount", "guest", "-n", "team")
        assert started.apply(LOOKER, BINDING).returncode == 0
        for name, namespace in (("works", "default"), ("held", "team"), ("done", "team")):
            spec = {"model": MODEL, "iterations": 5, "suspend": name == "held"}
            applied = started.apply(run_object(name, namespace, **spec))
            assert applied.returncode == 0, applied.stderr
        tell(started, "works", "default", a_live_run("works", run=with_bundled_model()).until(Stage.TRAIN, 2))
        tell(started, "done", "team", a_live_run("done", run=with_bundled_model()).finished())
        held = a_live_run("held", run=with_bundled_model().suspended())
        held.simulation.plan()
        tell(started, "held", "team", held)
        yield started


def tell(cluster: ApiServer, name: str, namespace: str, live: Any) -> None:
    """Store the status of a run that exists as a value."""
    status = live.simulation.run.status.evolve(observed_generation=1)
    patch = json.dumps({"status": json.loads(status.to_json())})
    said = cluster.kubectl("patch", "ar", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    assert said.returncode == 0, said.stderr


def spec_of(cluster: ApiServer, name: str, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.kubectl("get", "ar", name, "-n", namespace, "-o", "json").stdout)["spec"]
    return found


@pytest.fixture(scope="module")
def server(cluster: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UiServer]:
    """A page of the cluster and of a working folder."""
    root = tmp_path_factory.mktemp("ui")
    a_live_run("here", root / "runs" / "here").until(Stage.JUDGE, 1)
    with start_ui(cwd=root, kubeconfig=cluster.kubeconfig) as started:
        yield started


def dialog(page: Page) -> Any:
    return page.get_by_role("dialog")


@pytest.mark.parametrize(("width", "scheme"), [(WIDE, "light"), (PHONE, "dark")])
def test_the_runs_of_all_namespaces_and_of_this_machine_are_listed(
    chromium: Browser, server: UiServer, width: int, scheme: Scheme
) -> None:
    opened = open_list(chromium, server, width, scheme)
    page = opened.page
    expect(page.locator(".entry")).to_have_count(4)
    places = {" ".join(entry.inner_text().split()) for entry in page.locator(".entry-name").all()}
    assert places == {"works namespace default", "held namespace team", "done namespace team", "here runs"}
    page.get_by_label("Search").fill("team")
    expect(page.locator(".entry")).to_have_count(2)
    assert opened.serious_findings == ""
    assert (opened.complaints, opened.overflow <= 0) == ([], True)
    page.close()


def test_a_run_is_suspended_and_resumed_when_a_person_confirms_it(
    chromium: Browser, server: UiServer, cluster: ApiServer
) -> None:
    opened = open_run(chromium, server, "cluster:default/works")
    page = opened.page
    page.get_by_role("button", name="Suspend").click()
    expect(dialog(page)).to_contain_text("Suspend works?")
    assert opened.serious_findings == ""
    dialog(page).get_by_role("button", name="Cancel").click()
    expect(dialog(page)).to_be_hidden()
    assert not spec_of(cluster, "works", "default").get("suspend")
    page.get_by_role("button", name="Suspend").click()
    dialog(page).get_by_role("button", name="Suspend").click()
    expect(page.locator("#told")).to_contain_text("works is being suspended")
    assert spec_of(cluster, "works", "default")["suspend"] is True
    page.get_by_role("button", name="Resume").click()
    dialog(page).get_by_role("button", name="Resume").press("Enter")
    expect(page.locator("#told")).to_have_text("works goes on.")
    assert spec_of(cluster, "works", "default")["suspend"] is False
    assert opened.complaints == []
    page.close()


def test_iterations_are_raised_and_never_lowered(chromium: Browser, server: UiServer, cluster: ApiServer) -> None:
    page = open_run(chromium, server, "cluster:team/done").page
    page.get_by_role("button", name="More iterations").click()
    number = dialog(page).get_by_label("Iterations")
    expect(number).to_have_value("6")
    number.fill("3")
    dialog(page).get_by_role("button", name="Set iterations").click()
    expect(dialog(page)).to_be_visible()
    assert spec_of(cluster, "done", "team")["iterations"] == 5
    number.fill("8")
    dialog(page).get_by_role("button", name="Set iterations").click()
    expect(page.locator("#told")).to_have_text("done now has 8 iterations.")
    assert spec_of(cluster, "done", "team")["iterations"] == 8
    page.close()


def test_a_page_that_is_out_of_date_changes_nothing(server: UiServer, cluster: ApiServer) -> None:
    wish = {"key": "cluster:team/held", "change": "resume", "generation": 7}
    reply = server.open().post("/api/change", wish)
    assert reply.status == 409
    assert "has been changed since the page was drawn" in reply.json()["message"]
    assert spec_of(cluster, "held", "team")["suspend"] is True


def test_what_the_user_may_not_do_is_a_sentence(chromium: Browser, cluster: ApiServer, tmp_path: Path) -> None:
    guest = cluster.kubeconfig_of("guest", "team")
    with start_ui("-n", "team", cwd=tmp_path, kubeconfig=guest) as started:
        page = open_run(chromium, started, "cluster:team/held").page
        expect(page.locator(".part-situation .note").first).to_contain_text("you may not list jobs in namespace team")
        page.get_by_role("button", name="Resume").click()
        dialog(page).get_by_role("button", name="Resume").click()
        expect(dialog(page).get_by_role("alert")).to_contain_text("you may not patch alignmentruns in namespace team")
        assert spec_of(cluster, "held", "team")["suspend"] is True
        page.close()


def test_a_guest_sees_the_own_namespace_and_why_no_more(cluster: ApiServer, tmp_path: Path) -> None:
    guest = cluster.kubeconfig_of("guest", "team")
    with start_ui("--kubeconfig", str(guest), cwd=tmp_path) as started:
        page = started.open().get("/api/runs").json()
        assert page["rows"] == []
        assert "you may not list" in page["notes"][-1]


def test_who_may_approve_does_so_in_the_page_and_who_may_not_is_told(
    chromium: Browser, cluster: ApiServer, tmp_path: Path
) -> None:
    """By the same path as `dynalign approve`: the admission policy of the chart compares name and rights."""
    install_approvals(cluster)
    asks = run_object("asks", TEAM, model=MODEL, iterations=5, policy={"approval": ["BeforeTrain"]})
    assert cluster.apply(asks).returncode == 0
    gated = with_bundled_model().with_policy(approval=["BeforeTrain"])
    tell(cluster, "asks", TEAM, a_live_run("asks", run=gated).awaiting_approval())
    probe = json.dumps({"metadata": {"annotations": {APPROVAL_ANNOTATION: "probe"}}})
    as_bob = f"--kubeconfig={cluster.kubeconfig_of('bob', TEAM)}"
    dry_run = (as_bob, "patch", "ar", "asks", "-n", TEAM, "--type=merge", "-p", probe, "--dry-run=server")
    until(
        lambda: "verb approve" in cluster.kubectl(*dry_run).stderr,
        "the policy in force",
        lambda: "it lets everybody approve",
    )
    for name in ("bob", "alice"):
        with start_ui("-n", TEAM, cwd=tmp_path, kubeconfig=cluster.kubeconfig_of(name, TEAM)) as started:
            page = open_run(chromium, started, f"cluster:{TEAM}/asks").page
            page.get_by_role("button", name="Approve").click()
            dialog(page).get_by_role("button", name="Approve").click()
            if name == "bob":
                expect(dialog(page).get_by_role("alert")).to_contain_text("only with the verb approve")
                assert annotation(cluster, "asks") is None
            else:
                expect(page.locator("#told")).to_contain_text(f"{user('alice')} approved the judged answers")
            page.close()
    request = parse_request(annotation(cluster, "asks") or "")
    assert (request.by, request.decision) == (user("alice"), Decision.APPROVED)


def annotation(cluster: ApiServer, name: str) -> str | None:
    found = json.loads(cluster.kubectl("get", "ar", name, "-n", TEAM, "-o", "json").stdout)
    text: str | None = found["metadata"].get("annotations", {}).get(APPROVAL_ANNOTATION)
    return text
