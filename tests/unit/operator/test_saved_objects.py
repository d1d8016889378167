"""A resource saved with `kubectl get -o yaml` is a run file like any other: what the API server owns is left out, and said."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from dynalign_operator.api.status import AlignmentRunStatus, Phase
from dynalign_operator.cli.main import app
from dynalign_operator.clusters.local.workdir import Workdir, locked, merge_run
from dynalign_operator.runfile.run_file import RunFileError, parse_run_file
from dynalign_operator.runfile.server_fields import SERVER_FIELDS
from support.builders import a_run

ROOT = Path(__file__).parents[3]
UID = "11111111-2222-3333-4444-555555555555"
META: dict[str, Any] = {
    "name": "saved",
    "namespace": "team",
    "uid": UID,
    "generation": 4,
    "resourceVersion": "123456",
    "creationTimestamp": "2026-11-01T10:00:00Z",
    "deletionTimestamp": "2026-11-02T10:00:00Z",
    "deletionGracePeriodSeconds": 30,
    "selfLink": "/apis/dynalign.io/v1alpha1/namespaces/team/alignmentruns/saved",
    "managedFields": [{"manager": "kubectl", "operation": "Update"}],
    "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "parent", "uid": UID}],
    "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "kept"},
    "labels": {"team": "a"},
}
STATUS = {"phase": "Succeeded", "observedGeneration": 4, "fieldOfAnotherVersion": True}
SAVED: dict[str, Any] = {
    "apiVersion": "dynalign.io/v1alpha1",
    "kind": "AlignmentRun",
    "metadata": META,
    "spec": {"model": {"uri": "bundled://smollm2-135m-instruct"}, "iterations": 1},
    "status": STATUS,
}
OTHERS = [
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}},
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "x"}},
]
FORMS = {
    "yaml": yaml.safe_dump(SAVED),
    "json": json.dumps(SAVED),
    "a list of kubectl's": yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [*OTHERS, SAVED]}),
    "a list of the API server's": json.dumps(
        {"kind": "AlignmentRunList", "apiVersion": "dynalign.io/v1alpha1", "items": [SAVED]}
    ),
}


@pytest.fixture(params=list(FORMS.values()), ids=list(FORMS))
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "saved.yaml"
    path.write_text(request.param)
    return path


@pytest.mark.parametrize("command", ["validate", "render"])
def test_every_command_says_what_it_leaves_out(saved: Path, command: str) -> None:
    result = CliRunner().invoke(app, [command, str(saved)])
    assert result.exit_code == 0, result.stderr
    (note,) = [line for line in result.stderr.splitlines() if "what the API server owns" in line]
    assert note.startswith(f"{saved}: note: ignored what the API server owns: status, metadata.uid, ")
    for path in SERVER_FIELDS:
        assert str(path[-1]) in note


def test_what_is_rendered_belongs_to_no_stored_object(saved: Path) -> None:
    rendered = CliRunner().invoke(app, ["render", str(saved), "--all"]).stdout
    assert UID not in rendered
    assert "ownerReferences" not in rendered


def test_the_run_is_new(saved: Path) -> None:
    run = parse_run_file(saved.read_text()).run
    assert run.status == AlignmentRunStatus()
    metadata = run.metadata
    assert (metadata.name, metadata.namespace, metadata.labels) == ("saved", "team", {"team": "a"})
    assert metadata.annotations == {"mine": "kept"}
    assert (metadata.uid, metadata.resource_version, metadata.generation) == ("", "", 1)


def test_lines_are_those_of_the_file() -> None:
    text = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [SAVED]}).replace(
        "iterations: 1", "iterations: 0"
    )
    line = next(number for number, line in enumerate(text.splitlines(), start=1) if "iterations: 0" in line)
    with pytest.raises(RunFileError, match=r"spec\.iterations is 0") as caught:
        parse_run_file(text)
    assert [problem.line for problem in caught.value.problems] == [line]


def test_objects_of_other_kinds_in_a_list_are_named(tmp_path: Path) -> None:
    notes = parse_run_file(FORMS["a list of kubectl's"]).notes
    assert notes[0] == "ignored the objects of other kinds in the list: Pod"


def test_a_file_that_people_write_has_no_notes() -> None:
    for path in sorted([*ROOT.glob("examples/**/*.yaml"), *ROOT.glob("crds/samples/*.yaml")]):
        assert parse_run_file(path.read_text()).notes == ()


def test_a_working_folder_begins_without_the_status_that_came_along(tmp_path: Path) -> None:
    finished = a_run().with_status(AlignmentRunStatus(phase=Phase.SUCCEEDED)).build()
    workdir = Workdir(tmp_path / "run")
    with locked(workdir):
        assert merge_run(workdir, finished).status == AlignmentRunStatus()


def test_a_long_run_with_all_that_its_status_holds_is_read(tmp_path: Path) -> None:
    """An object of 1 MiB, as etcd holds it, is more as YAML."""
    artifact = {"path": "iterations/000/prompts", "digest": "sha256:" + "a" * 64, "bytes": 1, "rows": 1, "shards": 1}
    numbers = {"reward": 0.123456789, "winRate": 0.5, "winRateLow": 0.4, "winRateHigh": 0.6, "preference": 0.5}
    iterations = [
        {"index": index, **numbers, "prompts": artifact, "policy": artifact, "evaluation": artifact}
        for index in range(1000)
    ]
    text = yaml.dump({**SAVED, "status": {"iterations": iterations}}, Dumper=yaml.CSafeDumper)
    assert parse_run_file(text).run.status == AlignmentRunStatus()
