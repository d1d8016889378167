"""Commands of the pages are obeyed, one after the other, in a folder with this repository's files and without a cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.page_marks import Mark, Need, Place, PreparedRun, Session, sessions
from support.page_shell import PYTHON, check_session, obey, prepare_folder, write_run
from support.pages import ROOT, Block
from support.warm_cli import warm_cli

pytestmark = pytest.mark.slow

SESSIONS = sessions(Place.FOLDER)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with warm_cli(tmp_path_factory.mktemp("cli"), PYTHON) as path:
        yield path


@pytest.mark.parametrize("blocks", SESSIONS, ids=lambda blocks: str(blocks[0][0]))
def test_the_commands_of_a_page_succeed(cli: Path, blocks: Session, tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path / "folder")
    for _, mark in blocks:
        for run in mark.runs:
            write_run(folder, run)
    check_session(obey(blocks, folder, {"DOCS_CLI": str(cli)}), blocks)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dynalign validate my-run.yml", "my-run.yml"),
        ("dynalign validate my-run.yaml --strictly", "No such option"),
        ("dynalign validate nothing.yaml | cat", "nothing.yaml"),
        ("pip install dynalign", "needs installation: add `needs installation` to the mark"),
        ("docker build -f images/none/Dockerfile -t x .", "images/none/Dockerfile"),
        ("docker build -f images/trainer/Dockerfile -t x --build-arg COLOUR=red .", "has no ARG COLOUR=red"),
        ("docker push x", "x was not built before"),
        ("make nothing-at-all", "No rule to make target"),
        ("python3 -m benchmarks.trainer --colours 3", "there is no --colours"),
        ("dynalign run my-run.yaml --quiet    # ends with 20: it does not", "ended with 0 instead of 20"),
    ],
)
def test_a_command_that_does_not_do_is_found(cli: Path, text: str, says: str, tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path / "folder")
    write_run(folder, PreparedRun("my-run.yaml", "default", waits=False))
    needs = frozenset() if "pip" in text else frozenset({Need.DOCKER, Need.REGISTRY, Need.TIME})
    block = Block(ROOT / "README.md", 7, "bash", f"{text}\ntrue\n")
    done = obey([(block, Mark(Place.FOLDER, needs, ()))], folder, {"DOCS_CLI": str(cli)})
    assert done.returncode != 0
    assert says in done.output
