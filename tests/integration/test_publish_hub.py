"""An export becomes a repository of a hub; the hub is a stand-in, for none can be reached from here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.manifest import read_listed
from dynalign_contract.result import Outcome
from dynalign_contract.settings import PublishTarget, publish_token
from support.hub_store import HubStore, Repository
from support.publishing import export

pytestmark = pytest.mark.slow

TOKEN = "a-token-that-may-write"  # noqa: S105 - of a hub that lives for one test
NAME = "my-team/tiny"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStore]:
    with HubStore(TOKEN) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv(publish_token(0), TOKEN)
        yield running


def target(**changes: Any) -> PublishTarget:
    settings = {"repository": NAME, "license": "apache-2.0", "tokenSecretRef": {"name": "hub", "key": "t"}}
    return PublishTarget.model_validate({"hub": settings | changes})


def repository(hub: HubStore) -> Repository:
    return hub.repositories[NAME]


@pytest.mark.parametrize(("revision", "private"), [("main", True), ("v1", False)])
def test_the_repository_holds_the_export_and_a_card(
    revision: str, private: bool, publishing_root: Path, hub: HubStore
) -> None:
    result = export(publishing_root, target(revision=revision, private=private))
    assert (result.exit_code, result.outcome) == (0, Outcome.SUCCEEDED), result
    files = repository(hub).files(revision)
    assert files is not None
    assert [place.uri for place in result.published] == [f"hf://{NAME}@{repository(hub).branches[revision]}"]
    assert repository(hub).private is private
    manifest = read_listed(publishing_root / "export")
    for file in manifest.files:
        if file.name != "README.md":
            assert files[file.name] == (publishing_root / "export" / file.name).read_bytes()
    _, front, text = files["README.md"].decode().split("---\n", 2)
    head = yaml.safe_load(front)
    assert (head["license"], head["library_name"]) == ("apache-2.0", "transformers")
    assert "collective-agency" in head["tags"]
    assert manifest.digest in text


def test_a_second_push_commits_nothing(publishing_root: Path, hub: HubStore) -> None:
    first = export(publishing_root, target())
    before = dict(repository(hub).commits)
    again = export(publishing_root, target())
    assert (again.outcome, again.published) == (Outcome.SKIPPED, first.published)
    assert repository(hub).commits == before
    assert len(hub.uploads) == 1


def test_only_what_differs_is_committed(publishing_root: Path, hub: HubStore) -> None:
    export(publishing_root, target())
    whole = repository(hub).files("main")
    hub.commit(repository(hub), "main", {"config.json": b"{}", "other.txt": b"of somebody else"})
    assert export(publishing_root, target()).exit_code == 0
    assert repository(hub).files("main") == {**(whole or {}), "other.txt": b"of somebody else"}
    assert len(hub.uploads) == 1, "the weights were there"


def test_a_push_that_is_broken_off_goes_on_without_a_new_export(publishing_root: Path, hub: HubStore) -> None:
    hub.fails_at = "/commit/"
    failed = export(publishing_root, target())
    assert (failed.exit_code, failed.error and failed.error.reason) == (1, "StoreUnreachable"), failed
    hub.fails_at = None
    again = export(publishing_root, target())
    assert (again.outcome, len(again.published)) == (Outcome.SKIPPED, 1), again
    assert len(hub.uploads) == 1, "the weights were uploaded by the first attempt"


def test_what_the_hub_gives_out_is_compared(publishing_root: Path, hub: HubStore) -> None:
    hub.damages = True
    result = export(publishing_root, target())
    assert (result.exit_code, result.error and result.error.reason) == (1, "PublishMismatch"), result


@pytest.mark.parametrize("token", ["wrong", ""], ids=["wrong", "none"])
def test_a_token_that_does_not_do_is_bad_configuration(
    token: str, publishing_root: Path, hub: HubStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(publish_token(0), token)
    result = export(publishing_root, target())
    assert result.exit_code == ExitCode.BAD_CONFIG, result
    assert result.error is not None
    assert "spec.export.publish[0].hub.tokenSecretRef" in result.error.message
    assert publish_token(0) in result.error.message
    assert read_listed(publishing_root / "export").files, "the export itself is whole"
