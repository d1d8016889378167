"""Who may approve a run, on a real API server with the chart's role and admission policy."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dynalign_operator.api.approvals import APPROVAL_ANNOTATION, AwaitedApproval, Decision, Gate, build_request
from lab.api_server import PATIENCE, ApiServer, start_api_server
from support.approvals import TEAM, install_approvals, user
from support.builders import T0, an_artifact
from support.player import Player, is_completed, run_object, scenario, start_operator

pytestmark = pytest.mark.cluster

MODEL = {"uri": "bundled://smollm2-135m-instruct"}
AWAITED = AwaitedApproval(gate=Gate.BEFORE_TRAIN, iteration=0, artifact=an_artifact().digest, since=T0)


@dataclass(frozen=True)
class Person:
    """Somebody with a kubeconfig."""

    name: str
    kubeconfig: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with start_api_server(tmp_path_factory.mktemp("approvals") / "s") as started:
        assert started.kubectl("create", "namespace", TEAM).returncode == 0
        install_approvals(started)
        yield started


def text_by(name: str) -> str:
    return build_request(AWAITED, name, Decision.APPROVED).to_text()


@pytest.fixture
def run(server: ApiServer) -> Iterator[str]:
    made = run_object("r", TEAM, model=MODEL, policy={"approval": ["BeforeTrain", "BeforeExport"]})
    applied = server.apply(made)
    assert applied.returncode == 0, applied.stderr
    end = time.monotonic() + PATIENCE
    probe = {"metadata": {"annotations": {APPROVAL_ANNOTATION: "probe"}}}
    while not patch(server, "bob", probe, "--dry-run=server"):  # a stored one would be no change the next time
        assert time.monotonic() < end, "the policy does not come into force"
        time.sleep(0.2)  # between two looks at it
    yield "r"
    server.kubectl("delete", "ar", "r", "-n", TEAM)


def patch(server: ApiServer, name: str, change: dict[str, Any], *options: str) -> str:
    """What the API server refuses, or nothing."""
    as_user = server.kubeconfig_of(name, TEAM)
    found = server.kubectl(
        f"--kubeconfig={as_user}", "patch", "ar", "r", "-n", TEAM, "--type=merge", "-p", json.dumps(change), *options
    )
    return "" if found.returncode == 0 else found.stderr


def annotate(server: ApiServer, name: str, text: str | None) -> str:
    return patch(server, name, {"metadata": {"annotations": {APPROVAL_ANNOTATION: text}}})


def test_who_may_approve_does_so_under_the_own_name(server: ApiServer, run: str) -> None:
    assert annotate(server, "alice", text_by(user("alice"))) == ""


@pytest.mark.parametrize(
    "text",
    [
        text_by("alice"),
        text_by(user("bob")),
        text_by(user("alice") + "2"),
        " " + text_by(user("alice")),
        '{"gate":"BeforeTrain",' + text_by(user("alice"))[1:],
        "yes",
    ],
)
def test_a_foreign_name_is_refused(server: ApiServer, run: str, text: str) -> None:
    refusal = annotate(server, "alice", text)
    assert user("alice") in refusal
    assert "dynalign.io/approval must begin with" in refusal


def test_who_may_change_runs_may_not_approve_them(server: ApiServer, run: str) -> None:
    for text in (text_by(user("bob")), text_by(user("alice"))):
        assert "only with the verb approve" in annotate(server, "bob", text)
    assert patch(server, "bob", {"spec": {"suspend": True}}) == ""
    assert patch(server, "bob", {"metadata": {"labels": {"a": "b"}}}) == ""


def test_who_may_not_approve_may_not_withdraw_either(server: ApiServer, run: str) -> None:
    assert annotate(server, "alice", text_by(user("alice"))) == ""
    assert "only with the verb approve" in annotate(server, "bob", None)
    assert patch(server, "bob", {"spec": {"suspend": True}}) == "", "the annotation of another stays"
    assert annotate(server, "alice", None) == ""


@pytest.mark.parametrize("left", [[], ["BeforeExport"], None])
def test_who_may_not_approve_removes_no_gate(server: ApiServer, run: str, left: list[str] | None) -> None:
    change = {"spec": {"policy": {"approval": left}}}
    assert "a gate may be removed" in patch(server, "bob", change)
    assert patch(server, "alice", change) == ""
    assert patch(server, "bob", {"spec": {"policy": {"approval": ["BeforeTrain", "BeforeExport"]}}}) == ""


def test_a_run_is_not_created_approved(server: ApiServer, run: str) -> None:
    made = run_object("born-approved", TEAM, model=MODEL, policy={"approval": ["BeforeTrain"]})
    made["metadata"]["annotations"] = {APPROVAL_ANNOTATION: text_by(user("bob"))}
    as_bob = server.kubeconfig_of("bob", TEAM)
    found = server.kubectl(f"--kubeconfig={as_bob}", "create", "-f", "-", text=json.dumps(made))
    assert "only with the verb approve" in found.stderr
    del made["metadata"]["annotations"]
    assert server.kubectl(f"--kubeconfig={as_bob}", "create", "-f", "-", text=json.dumps(made)).returncode == 0
    assert server.kubectl("delete", "ar", "born-approved", "-n", TEAM).returncode == 0


def dynalign(server: ApiServer, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from dynalign_operator.cli.main import main; main()", *arguments]
    environment = {**os.environ, "KUBECONFIG": str(server.kubeconfig_of(name, TEAM))}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=environment, cwd=server.folder
    )


def awaits(gate: Gate) -> Any:
    return lambda status: (status.get("awaitedApproval") or {}).get("gate") == gate


def test_a_run_goes_on_when_who_may_has_approved_and_names_that_person(server: ApiServer) -> None:
    made = run_object(
        "r",
        TEAM,
        model=MODEL,
        iterations=1,
        policy={"approval": ["BeforeTrain", "BeforeExport"]},
    )
    arguments = ("r", "-n", TEAM)

    async def story(player: Player) -> None:
        await player.create(made)
        await player.until(awaits(Gate.BEFORE_TRAIN), "the wait before the training")
        said = dynalign(server, "bob", "describe", *arguments).stdout
        assert "waits for a person's approval (BeforeTrain)" in " ".join(said.split())
        assert f"`dynalign approve r -n {TEAM}`" in " ".join(said.split())
        assert "awaits approval" in server.kubectl("get", "ar", "r", "-n", TEAM).stdout
        refused = dynalign(server, "bob", "approve", *arguments)
        assert refused.returncode == 1
        assert "only with the verb approve" in refused.stderr

        approved = dynalign(server, "alice", "approve", *arguments)
        assert approved.returncode == 0, approved.stderr
        found = await player.until(awaits(Gate.BEFORE_EXPORT), "the wait before the export")
        (entry,) = found["status"]["approvals"]
        assert (entry["by"], entry["verified"], entry["decision"]) == (user("alice"), True, "Approved")

        rejected = dynalign(server, "alice", "approve", *arguments, "--reject", "it flatters")
        assert rejected.returncode == 0, rejected.stderr
        found = await player.until(lambda s: s.get("phase") == "Failed", "the end of the refused run")
        stalled = next(c for c in found["status"]["conditions"] if c["type"] == "Stalled")
        assert stalled["reason"] == "Rejected"
        assert "it flatters" in stalled["message"]
        assert dynalign(server, "bob", "watch", *arguments).returncode == 12
        assert dynalign(server, "alice", "approve", *arguments).returncode == 11

        assert patch(server, "bob", {"spec": {"policy": {"retries": 4}}}) == ""
        await player.until(awaits(Gate.BEFORE_EXPORT), "the wait of the run that is tried again")
        assert dynalign(server, "alice", "approve", *arguments).returncode == 0
        await player.until(is_completed, "completion")

    with start_operator(server, DYNALIGN_APPROVALS_VERIFIED="true"):
        scenario(server, story, namespace=TEAM)
