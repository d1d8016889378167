"""A folder and a shell in which the commands of a page are obeyed, as a reader types them one after the other."""

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.runfile.run_file import parse_run_file
from lab.cluster import CACHE
from release.contexts import IMAGES, context_name
from release.version import read_version
from support.finished_runs import finish_run, stop_at_gate
from support.page_marks import Mark, PreparedRun, Session
from support.pages import ROOT, Block

RUN_FILE: Final = "my-run.yaml"
"""The name that pages give to the reader's own run file."""
_SUPPORT: Final = Path(__file__).parent
_PROGRAM: Final = _SUPPORT / "stand_ins" / "program.py"
_PROGRAMS: Final = [
    "dynalign",
    "uvx",
    "pipx",
    "pip",
    "uv",
    "python",
    "python3",
    "make",
    "docker",
    "kind",
    "helm",
    "kubectl",
]
_SCRIPTS: Final = ("up.sh", "down.sh", "images.sh")
_LINKED: Final = ("examples", "charts", "crds", "docs", "images", "benchmarks", "Makefile", "pyproject.toml")
_LIMIT_SECONDS: Final = 600
_ENDS_WITH: Final = re.compile(r"^(?P<command>[^#\n]*?) *# ends with (?P<code>\d+)\b.*$", re.MULTILINE)
_PRELUDE: Final = """
set -eE -o pipefail
trap 'echo "line failed with exit code $?: $BASH_COMMAND" >&2' ERR
ends_with() {
  local code=$1 got=0; shift
  "$@" || got=$?
  [ "$got" = "$code" ] || { echo "ended with $got instead of $code: $*" >&2; return 1; }
}
"""


PYTHON: Final = {"PYTHONPATH": os.pathsep.join(map(str, (_SUPPORT / "scripted_stages", ROOT / "tests", ROOT)))}
"""Environment in which the stages of `dynalign run` do no work."""


@dataclass(frozen=True)
class Obeyed:
    """What came of the commands of a page."""

    returncode: int
    output: str
    block: str
    """The last block that was begun."""
    needs: Mapping[str, frozenset[str]]
    """Block -> needs that its commands had."""


def prepare_folder(folder: Path) -> Path:
    """Make a folder with the files that the pages' commands name: links into the repository, programs, a run file."""
    folder.mkdir()
    for name in _LINKED:
        (folder / name).symlink_to(ROOT / name)
    _write_programs(folder / ".venv" / "bin", _PROGRAMS)
    _write_programs(folder / "tests" / "cluster", _SCRIPTS)
    run = next(iter(yaml.safe_load_all((ROOT / "examples" / "tutorial.yaml").read_text())))
    del run["spec"]["objective"]
    (folder / RUN_FILE).write_text(yaml.safe_dump({**run, "metadata": {"name": "my-run"}}))
    (folder / "values.yaml").write_text("{}\n")
    for image in IMAGES:
        (folder / context_name(image, read_version(ROOT))).touch()
    _init_repository(folder)
    return folder


def write_run(folder: Path, prepared: PreparedRun) -> None:
    """Write the working folder of a run that has ended, or that waits for an approval."""
    if prepared.waits:
        add_gate(folder / prepared.name)
    run = _read_run(folder, prepared.name)
    workdir = folder / "runs" / run.metadata.name
    if workdir.exists():
        return
    workdir.mkdir(parents=True)
    if prepared.waits:
        stop_at_gate(workdir, run)
    else:
        finish_run(workdir, run)


def add_gate(file: Path) -> None:
    """Have the run of a file wait for an approval before it trains."""
    documents: list[Any] = [*yaml.safe_load_all(file.read_text())]
    for document in documents:
        if document["kind"] == "AlignmentRun":
            document["spec"]["policy"] = {"approval": ["BeforeTrain"]}
    file.write_text(yaml.safe_dump_all(documents))


def obey(blocks: Session, folder: Path, environment: Mapping[str, str]) -> Obeyed:
    """Run the commands of a page's blocks in one shell, up to the first that fails."""
    notes = folder / ".notes"
    script = _PRELUDE + "".join(_script(block, mark, notes) for block, mark in blocks)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**_environment(folder), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_LIMIT_SECONDS,
        check=False,
    )
    started = re.findall(r"^@@ (.*)$", done.stdout, re.MULTILINE)
    return Obeyed(done.returncode, done.stdout, started[-1] if started else "", _needs(notes))


def check_session(done: Obeyed, blocks: Session) -> None:
    """Fail unless every command succeeded, and every need that a mark names was one."""
    assert done.returncode == 0, f"{done.block}: a command failed\n{done.output}"
    for block, mark in blocks:
        assert done.needs[str(block)] == mark.needs, f"{block}: the mark names needs that its commands do not have"


def _script(block: Block, mark: Mark, notes: Path) -> str:
    """The lines of a block, after a line that says which one it is; `# ends with 20` is an exit code that is expected."""
    begun = json.dumps(["block", str(block)])
    text = _ENDS_WITH.sub(r"ends_with \g<code> \g<command>", block.text)
    needs = ",".join(sorted(mark.needs))
    return f"\necho '@@ {block}'\nexport DOCS_NEEDS='{needs}' DOCS_NOTES={notes}\necho '{begun}' >> {notes}\n{text}"


def _read_run(folder: Path, name: str) -> AlignmentRun:
    """The run of a file, or the reader's own run under another name."""
    if name.endswith(".yaml"):
        return parse_run_file((folder / name).read_text()).run
    run = parse_run_file((folder / RUN_FILE).read_text()).run
    return run.model_copy(update={"metadata": run.metadata.model_copy(update={"name": name})})


def _write_programs(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -S {_PROGRAM} {name} "$@"\n')
        script.chmod(0o755)


def _init_repository(folder: Path) -> None:
    """A git repository with a commit, a remote, and a key that signs tags."""
    key = folder / ".signing"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (folder / ".gitconfig").write_text(
        textwrap.dedent(f"""\
            [user]
            name = Reader
            email = reader@example.com
            signingkey = {key}.pub
            [gpg]
            format = ssh
            [init]
            defaultBranch = main
            """)
    )
    environment = {**os.environ, "HOME": str(folder)}
    for command in (
        ["init", "-q", "--bare", ".origin"],
        ["init", "-q"],
        ["remote", "add", "origin", ".origin"],
        ["add", RUN_FILE],
        ["commit", "-qm", "a run"],
        ["branch", "COMMIT"],
    ):
        subprocess.run(["git", *command], cwd=folder, env=environment, check=True)
    with (folder / RUN_FILE).open("a") as file:
        file.write("# a change to commit\n")


def _environment(folder: Path) -> dict[str, str]:
    """A reader's environment: a home of its own, this repository's command line, no cluster."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DYNALIGN_", "KUBE", "GIT_"))}
    return {
        **kept,
        "HOME": str(folder),
        "PATH": f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        **PYTHON,
        "DYNALIGN_CACHE": str(folder / "cache"),
        "DOCS_REPOSITORY": str(ROOT),
        "DOCS_TOOLS": str(CACHE / "bin"),
        "COLUMNS": "120",
    }


def _needs(notes: Path) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    block = ""
    lines: list[Any] = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
    for kind, text in lines:
        if kind == "block":
            block = text
            found.setdefault(block, set())
        elif kind == "need":
            found[block].add(text)
    return {name: frozenset(needs) for name, needs in found.items()}
