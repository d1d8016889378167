"""Every mistake gets its sentence: the first lines of each file in data/bad_runs say which, and with which exit code.

`# exit N`, then one line a problem: `# LINE: sentence`, with `-` where no line is to blame. N is what `render` and `run`
end with; `validate` ends with 10 whatever is wrong.
"""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dynalign_contract.exit_codes import ExitCode
from dynalign_operator.api.rules import RULES
from dynalign_operator.cli.main import app

FILES = sorted((Path(__file__).parents[2] / "data" / "bad_runs").glob("*.yaml"))


def expected(path: Path) -> tuple[int, list[str]]:
    head = re.match(r"# exit (\d+)\n((?:# (?:-|\d+): .*\n)+)", path.read_text())
    assert head is not None, f"{path.name} does not say what is expected"
    problems = [line[2:].split(": ", 1) for line in head[2].splitlines()]
    return int(head[1]), [f"{path}: {text}" if line == "-" else f"{path}:{line}: {text}" for line, text in problems]


def test_there_are_many() -> None:
    assert len(FILES) >= 45


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_bad_run_file(path: Path) -> None:
    code, lines = expected(path)
    result = CliRunner().invoke(app, ["validate", str(path)])
    assert result.stderr.splitlines() == lines
    assert result.exit_code == ExitCode.BAD_CONFIG
    assert result.stdout == ""
    assert CliRunner().invoke(app, ["render", str(path)]).exit_code == code


def test_every_rule_is_broken_by_some_file() -> None:
    texts = "\n".join(path.read_text() for path in FILES)
    for rule in RULES:
        field = rule.field.rpartition(".")[2]
        if rule.message != "must be longer than nothing":  # one rule for three fields
            assert f"{field} {rule.message}" in texts, f"no file breaks the rule {rule.cel}"


def test_no_sentence_speaks_of_the_library() -> None:
    texts = "\n".join(line for path in FILES for line in expected(path)[1])
    assert not re.search(r"pydantic|validation error|type=|input_value|Traceback|valid dictionary", texts)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    missing = CliRunner().invoke(app, ["validate", str(tmp_path / "no.yaml")])
    assert (missing.exit_code, missing.stderr) == (
        10,
        f"{tmp_path}/no.yaml: the file does not exist; check the path.\n",
    )
    folder = CliRunner().invoke(app, ["validate", str(tmp_path)])
    assert (folder.exit_code, folder.stderr) == (10, f"{tmp_path}: this is a folder; name the run file in it.\n")


def test_latin_1_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("kind: Ä".encode("latin-1"))
    result = CliRunner().invoke(app, ["validate", str(path)])
    assert (result.exit_code, result.stderr) == (
        10,
        f"{path}: the file is not UTF-8 text (byte 6); save it as UTF-8.\n",
    )


def test_aliases_cannot_blow_up(tmp_path: Path) -> None:
    path = tmp_path / "laughs.yaml"
    layers = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    layers += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    path.write_text("\n".join(layers))
    result = CliRunner().invoke(app, ["validate", str(path)])
    assert result.exit_code == 10
    assert "has more than 300000 values" in result.stderr
