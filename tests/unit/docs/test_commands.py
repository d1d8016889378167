"""Command lines of the documentation exist: programs of this repository, their commands, options, targets and values."""

import re
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from dynalign_operator.cli.main import app
from support.page_marks import command_blocks
from support.pages import ROOT, Block, pages, spans, split_commands

PROGRAM: Any = typer.main.get_command(app)
OF_PROGRAM = {"-h", "--help", *(option for parameter in PROGRAM.params for option in parameter.opts)}
BLOCKS = command_blocks()
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
VALUES = yaml.safe_load((ROOT / "charts/dynalign/values.yaml").read_text())
INSTALLERS = {
    ("pip", "install"): (sys.executable, "-m", "pip", "install", "--help"),
    ("uv", "pip"): (str(Path(sys.executable).with_name("uv")), "pip", "install", "--help"),
    ("uv", "tool"): (str(Path(sys.executable).with_name("uv")), "tool", "install", "--help"),
    ("uv", "publish"): (str(Path(sys.executable).with_name("uv")), "publish", "--help"),
}


def of_program(name: str) -> list[tuple[Block, list[str]]]:
    """The command lines that start a program, with the blocks that they stand in."""
    return [(block, words) for block in BLOCKS for words in block.commands() if words[:1] == [name]]


def named(case: Any) -> str:
    return str(case) if isinstance(case, Block) else " ".join(case)


@pytest.mark.parametrize(("block", "words"), of_program("dynalign"), ids=named)
def test_a_command_line_of_dynalign_is_one_that_it_accepts(block: Block, words: list[str]) -> None:
    """Parsed by the command line itself, which raises for what it does not know, without running it."""
    name, *arguments = words[1:]
    if name.startswith("-"):
        assert name in OF_PROGRAM
    else:
        assert name in PROGRAM.commands
        assert PROGRAM.commands[name].make_context(name, arguments)


def test_the_command_lines_of_every_command_are_documented() -> None:
    used = {words[1] for _, words in of_program("dynalign") if len(words) > 1}
    assert used >= PROGRAM.commands.keys()


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_in_the_text_exist(page: Path) -> None:
    """Code spans such as `dynalign prompts --samples`, whose arguments may be left out."""
    for span in spans(page):
        for words in split_commands(span):
            if words[0] != "dynalign" or len(words) == 1 or not words[1].islower():
                continue
            if words[1].startswith("-"):
                assert words[1] in OF_PROGRAM, f"`{span}`: there is no such option"
                continue
            command = PROGRAM.commands.get(words[1])
            assert command is not None, f"`{span}`: there is no such command"
            options = {option for parameter in command.params for option in parameter.opts} | {"-h", "--help"}
            used = {word.partition("=")[0] for word in words[2:] if word.startswith("-")}
            assert used <= options, f"`{span}`: {used - options}"


@pytest.mark.parametrize(("block", "words"), of_program("make"), ids=named)
def test_a_target_exists(block: Block, words: list[str]) -> None:
    targets = {word for word in words[1:] if re.fullmatch(r"[a-z][a-z-]*", word)}
    assert targets
    assert targets <= TARGETS


@pytest.mark.parametrize(("block", "words"), of_program("helm"), ids=named)
def test_a_value_that_is_set_is_one_of_the_chart(block: Block, words: list[str]) -> None:
    following = [after for word, after in pairwise(words) if word == "--set"]
    for setting in re.sub(r"\{[^}]*\}", "", ",".join(following)).split(","):
        values: Any = VALUES
        for part in setting.partition("=")[0].split(".") if setting else []:
            assert part in values, f"{block}: the chart has no value {setting}"
            values = values[part]


@pytest.mark.parametrize(("block", "words"), of_program("pip") + of_program("uv"), ids=named)
def test_an_option_of_an_installer_exists(block: Block, words: list[str]) -> None:
    command = INSTALLERS[words[0], words[1]]
    used = {word.partition("=")[0] for word in words if word.startswith("-")}
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", _help_of(command)))
    assert used <= known


@pytest.mark.parametrize(("block", "words"), of_program("python"), ids=named)
def test_a_module_that_is_run_exists(block: Block, words: list[str]) -> None:
    if words[1] == "-m":
        module = ROOT.joinpath(*words[2].split("."))
        assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_script_or_file_of_the_repository_that_is_named_exists(block: Block) -> None:
    for words in block.commands():
        for word in words:
            if re.match(r"(tests/cluster|examples|images|charts|crds|docs)/[\w./-]+$", word):
                assert (ROOT / word).exists(), f"{block}: {word}"


@cache
def _help_of(command: tuple[str, ...]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
