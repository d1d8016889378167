"""What models, servers, volumes and users wrote is text on a terminal and in a pipe, whichever command prints it."""

import ast
import json
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.text import Text
from typer.testing import CliRunner, Result

from dynalign_contract.layout import DRAFTS_FILE, PROMPTS_FILE, YIELD_FILE, stage_folder
from dynalign_contract.manifest import Manifest, describe_file, write_manifest
from dynalign_contract.plain_text import has_hidden
from dynalign_contract.prompt_yield import AgentYield, PromptYield, PromptYields
from dynalign_contract.records import DRAFT, PROMPT, write_rows
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import AlignmentRunStatus, Condition, ConditionType, Phase
from dynalign_operator.cli import terminal, views
from dynalign_operator.cli.main import app
from dynalign_operator.planning.plan import Event, EventType, Plan
from support.builders import T0, a_run

COMMANDS = Path(terminal.__file__).parent
HOSTILE = "[/red][link=http://evil]x[/link] :smile: \x1b]52;c;ZXZpbA==\x07\x1b]8;;http://evil\x1b\\y\x1b]8;;\x1b\\\x9b2J\u202egnp\x1b[31m"
SHOWN = "[/red][link=http://evil]x[/link] :smile: ygnp"
"""Markup is text, and the rest is gone."""


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    stalled = Condition(
        type=ConditionType.STALLED, status="True", reason="BadInput", message=HOSTILE, last_transition_time=T0
    )
    run = a_run().with_status(AlignmentRunStatus(phase=Phase.FAILED, conditions=(stalled,))).build()
    (tmp_path / "run.json").write_text(run.to_json())
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "r-i000-prompts-a1.log").write_text(f"first\n{HOSTILE}\nlast\n")
    folder = tmp_path / stage_folder(Stage.PROMPTS, 0)
    folder.mkdir(parents=True)
    prompt: Any = {
        "prompt_id": "0",
        "messages": [{"role": "user", "content": HOSTILE}],
        "source": HOSTILE,
        "facets": {},
    }
    prompt |= {"critic_score": 5.0, "agents": {}, "draft_id": "d", "draft": HOSTILE, "draft_score": 1.0}
    draft: Any = {"draft_id": "d", "facets": {}, "text": HOSTILE, "score": 1.0, "revised": "", "revised_score": 1.0}
    draft |= {"agent": "curator", "outcome": "near-duplicate", "prompt_id": ""}
    write_rows(folder / PROMPTS_FILE, [prompt], PROMPT)
    write_rows(folder / DRAFTS_FILE, [draft], DRAFT)
    agent = AgentYield(agent="author", model=HOSTILE, given=1, kept=1, dropped={HOSTILE: 1}, requests=1, tokens=1)
    yields = PromptYields(sets=(PromptYield(purpose="train", wanted=1, found=1, agents=(agent,)),))
    (folder / YIELD_FILE).write_text(yields.to_json())
    files = tuple(describe_file(folder, name, 0) for name in (PROMPTS_FILE, DRAFTS_FILE, YIELD_FILE))
    write_manifest(
        folder, Manifest(stage=Stage.PROMPTS, iteration=0, config_digest="sha256:" + "0" * 64, files=files, seconds=1.0)
    )
    return tmp_path


def invoke(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "400"}).invoke(app, list(map(str, arguments)))


@pytest.mark.parametrize("command", ["status", "logs", "prompts"])
def test_what_is_read_from_a_folder_is_shown_as_text(workdir: Path, command: str) -> None:
    result = invoke(command, workdir)
    assert result.exit_code == 0, result.output
    assert SHOWN in result.stdout
    assert not has_hidden(result.output)


@pytest.mark.parametrize(
    "arguments", [("status", "-o", "json"), ("status", "-o", "yaml"), ("prompts", "--json")], ids=" ".join
)
def test_programs_get_every_value_and_terminals_no_harm(workdir: Path, arguments: tuple[str, ...]) -> None:
    result = invoke(arguments[0], workdir, *arguments[1:])
    assert not has_hidden(result.stdout)
    data = yaml.safe_load(result.stdout) if "yaml" in arguments else json.loads(result.stdout)
    said = (
        data["status"]["conditions"][0]["message"] if "status" in data else data["prompts"][0]["messages"][0]["content"]
    )
    assert said == (SHOWN if "status" in data else HOSTILE)  # the door of the status has cleaned it already


@pytest.mark.parametrize("command", ["validate", "render", "run"])
def test_what_a_run_file_says_is_quoted_as_text(tmp_path: Path, command: str) -> None:
    path = tmp_path / "run.yaml"
    text = "apiVersion: dynalign.io/v1alpha1\nkind: AlignmentRun\nmetadata: {name: a}\nspec:\n  model: {uri: '[/red]\u202ex'}\n"
    path.write_text(text + "  \u2066iterations\u2069: 3\n")
    result = invoke(command, path)
    assert result.exit_code == 10
    assert not has_hidden(result.output)
    assert 'spec.model.uri is "[/red]x"; write hf://org/name' in result.stderr


def test_events_of_a_run_are_text() -> None:
    event = Event(EventType.WARNING, "StageFailed", HOSTILE)
    decided = Plan(status=AlignmentRunStatus(progress="1/2"), events=(event,))

    class Cluster:
        run = a_run().build()

    console = terminal.open_console()
    console.file = StringIO()
    console.width = 400
    views.plain_view(console)(Cluster(), decided, datetime(2026, 1, 1, tzinfo=UTC))  # type: ignore[arg-type]
    assert SHOWN in console.file.getvalue()
    assert not has_hidden(console.file.getvalue())


def test_a_console_knows_neither_markup_nor_codes() -> None:
    console = terminal.open_console()
    console.file, console.width = StringIO(), 200
    console.print(terminal.styled("a\x1b]0;title\x07\u202eb", "bold"), "[bold]c", Text("d\x1b[31me"))
    assert console.file.getvalue().split() == ["ab", "[bold]c", "de"]


def test_there_is_no_other_way_to_print() -> None:
    for path in COMMANDS.glob("*.py"):
        if path.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in ("print", "typer.echo", "Console", "sys.stdout.write", "sys.stderr.write"), path
