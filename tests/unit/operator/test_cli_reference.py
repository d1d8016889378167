"""docs/reference/cli.md has every command, argument and option that a function of the command line declares."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.models import ArgumentInfo, OptionInfo

from dynalign_operator.cli.main import app
from dynalign_operator.generate.cli_page import render_reference

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"
COMMANDS = {
    command.callback.__name__.replace("_", "-"): command.callback
    for command in app.registered_commands
    if command.callback
}


def declared(function: object) -> Iterator[str]:
    """What the page has to name for each parameter, from its annotation."""
    assert callable(function)
    for name, parameter in inspect.signature(function).parameters.items():
        (info,) = parameter.annotation.__metadata__
        if isinstance(info, ArgumentInfo):
            assert info.metavar is not None
            yield info.metavar
        elif isinstance(info, OptionInfo):
            names = (info.default, *(info.param_decls or ()))  # typer takes the first of several for the default
            yield from [text for text in names if isinstance(text, str)] or [f"--{name}"]


def test_the_page_is_what_the_parser_says() -> None:
    assert PAGE.read_text() == render_reference(), "run make generate"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_section_with_all_that_it_takes(name: str) -> None:
    _, _, after = PAGE.read_text().partition(f"## dynalign {name}\n")
    section = after.partition("\n## ")[0]
    assert section, f"dynalign {name} has no section"
    terms = {word for span in re.findall(r"^- `([^`]+)`", section, re.MULTILINE) for word in re.split(r",? ", span)}
    assert set(declared(COMMANDS[name])) <= terms
