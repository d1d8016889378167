"""`kubectl dynalign`: kubectl finds the same program under another name, and asks it for completion; and the man page."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from dynalign_operator.cli.main import app
from dynalign_operator.cli.run_choice import RunChoice, find_local, program_name
from dynalign_operator.generate.man_page import render_man_page

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCRIPTS: dict[str, str] = PROJECT["project"]["scripts"]


@pytest.fixture
def a_local_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder runs/r in the current folder."""
    (tmp_path / "runs" / "r").mkdir(parents=True)
    (tmp_path / "runs" / "r" / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return Path("runs/r")


@pytest.mark.parametrize(
    ("program", "choice", "is_local"),
    [
        ("dynalign", RunChoice("r"), True),
        ("dynalign", RunChoice(None), True),
        ("dynalign", RunChoice("runs/r"), True),
        ("dynalign", RunChoice("r", namespace="team"), False),
        ("dynalign", RunChoice("r", context="prod"), False),
        ("dynalign", RunChoice("other"), False),
        ("kubectl-dynalign", RunChoice("r"), False),
        ("kubectl-dynalign", RunChoice(None), False),
        ("kubectl-dynalign", RunChoice("runs/r"), True),
        ("kubectl-dynalign", RunChoice("./runs/r"), True),
    ],
)
def test_a_name_means_a_run_of_the_cluster_for_kubectl(
    a_local_run: Path, monkeypatch: pytest.MonkeyPatch, program: str, choice: RunChoice, *, is_local: bool
) -> None:
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/{program}"])
    assert program_name() == program.replace("-", " ")
    assert find_local(choice) == (a_local_run if is_local else None)


def run_script(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the distribution as pip installs it."""
    module, _, function = SCRIPTS[name].partition(":")
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    path.chmod(0o755)
    (folder / "runs" / "local-run").mkdir(parents=True, exist_ok=True)
    (folder / "runs" / "local-run" / "run.json").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KUBE")}
    return subprocess.run(
        [path, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**environment, "HOME": str(folder), "TERM": "dumb"},
    )


@pytest.mark.slow
def test_usage_texts_name_what_was_typed(tmp_path: Path) -> None:
    assert (
        "Usage: kubectl dynalign logs [OPTIONS] [RUN]" in run_script(tmp_path, "kubectl-dynalign", "logs", "-h").stdout
    )
    assert "Usage: dynalign logs [OPTIONS] [RUN]" in run_script(tmp_path, "dynalign", "logs", "-h").stdout
    assert "--install-completion" in run_script(tmp_path, "dynalign", "-h").stdout
    assert "--install-completion" not in run_script(tmp_path, "kubectl-dynalign", "-h").stdout
    nothing = run_script(tmp_path, "kubectl-dynalign", "describe", "local-run")
    assert nothing.returncode == 10
    assert nothing.stderr.startswith("there is no kubeconfig")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "candidates", "directive"),
    [
        (["des"], ["describe"], ":4"),
        (["logs", "--stage", "g"], ["generate"], ":4"),
        (["logs", "--iter"], ["--iteration"], ":4"),
        (["describe", ""], [], ":4"),
        (["run", ""], [], ":0"),
    ],
    ids=" ".join,
)
def test_kubectl_asks_for_completion(tmp_path: Path, words: list[str], candidates: list[str], directive: str) -> None:
    said = run_script(tmp_path, "kubectl_complete-dynalign", *words)
    assert said.returncode == 0, said.stderr
    *lines, last = said.stdout.splitlines()
    assert [line.split("\t")[0] for line in lines if line] == candidates
    assert last == directive


@pytest.mark.slow
def test_the_shell_completes_the_names_of_local_runs(tmp_path: Path) -> None:
    script = run_script(tmp_path, "dynalign", "--show-completion", "bash").stdout
    assert "_DYNALIGN_COMPLETE=complete_bash" in script
    words = f'{script}\nCOMP_WORDS=(dynalign describe lo); COMP_CWORD=2; _dynalign_completion "{tmp_path}/dynalign"'
    done = subprocess.run(
        ["bash", "-c", f'{words}; echo "${{COMPREPLY[@]}}"'],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "KUBECONFIG": ""},
    )
    assert done.stdout == "local-run\n", done.stderr


def test_the_man_page_has_every_command_and_option() -> None:
    page = (ROOT / "operator" / "man" / "dynalign.1").read_text()
    assert page == render_man_page(), "run make generate"
    program: Any = typer.main.get_command(app)
    for name, command in program.commands.items():
        _, _, after = page.partition(f".SS dynalign {name.replace('-', chr(92) + '-')} ")
        section = after.partition("\n.S")[0]
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else ():
                assert option.replace("-", "\\-") in section
    assert not any(line.startswith(("'", "...")) for line in page.splitlines())


def test_the_distribution_installs_man_pages() -> None:
    files = PROJECT["tool"]["setuptools"]["data-files"]["share/man/man1"]
    assert {Path(file).name for file in files} == {"dynalign.1", "kubectl-dynalign.1"}
    assert all((ROOT / file).is_file() for file in files)
