"""`dynalign init` leaves a run file that `dynalign validate` accepts, and never writes over one."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dynalign_operator.cli.init import Example
from dynalign_operator.cli.load import load_run_file
from dynalign_operator.cli.main import app

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("example", Example)
def test_an_example_is_written_as_it_stands_in_the_repository_and_is_valid(example: Example) -> None:
    result = CliRunner().invoke(app, ["init", "--example", example])
    assert result.exit_code == 0, result.output
    written = Path(f"{example}.yaml")
    assert written.read_text() == (EXAMPLES / written).read_text().replace(f"examples/{written}", str(written))
    assert load_run_file(written).run.spec.model.uri.startswith("bundled://")


def test_what_to_do_next_names_the_file_that_was_written() -> None:
    result = CliRunner().invoke(app, ["init", "mine.yaml"])
    assert result.exit_code == 0
    assert "dynalign validate mine.yaml\n" in result.output
    assert "dynalign run mine.yaml\n" in result.output
    assert "examples/" not in Path("mine.yaml").read_text()


def test_without_a_choice_the_objective_stands_in_the_file() -> None:
    CliRunner().invoke(app, ["init", "mine.yaml"])
    assert load_run_file(Path("mine.yaml")).config_maps


def test_a_file_that_is_there_stays_as_it_is() -> None:
    Path("tutorial.yaml").write_text("mine")
    result = CliRunner().invoke(app, ["init"])
    assert result.exit_code == 10
    assert "tutorial.yaml exists already" in result.output
    assert Path("tutorial.yaml").read_text() == "mine"


def test_a_folder_that_is_not_there_is_said() -> None:
    result = CliRunner().invoke(app, ["init", "nowhere/mine.yaml"])
    assert result.exit_code == 10
    assert "nowhere/mine.yaml cannot be written: No such file or directory" in result.output


def test_the_version_is_that_of_the_installation() -> None:
    from importlib.metadata import version

    assert CliRunner().invoke(app, ["--version"]).output == f"dynalign {version('dynalign')}\n"


def test_a_run_without_the_stages_says_how_to_add_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynalign_operator.cli.installed._STAGES", ("torch", "no_such_engine"))
    CliRunner().invoke(app, ["init"])
    result = CliRunner().invoke(app, ["run", "tutorial.yaml"])
    assert result.exit_code == 10
    assert "no_such_engine cannot be imported" in result.output
    assert "dynalign requirements cpu > requirements.txt" in result.output
    assert not Path("runs").exists()
