"""docs/reference/cli.md, generated from the argument parser: `--write FILE`, or `--check FILE` for drift."""

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import typer

from dynalign_operator.cli.main import app
from dynalign_operator.generate.generator import run_generator

_HEAD: Final = """\
<!-- Generated from operator/dynalign_operator/cli by `make generate`; change the commands instead. -->
# The command line

`dynalign COMMAND --help` prints the same. [Runs on one machine](../local-runs.md) describes run files, exit codes, the
summary and the working folder. Messages about what is wrong go to standard error, one paragraph each, and begin with
`file:line` where a file is the cause.
"""


def render_reference() -> str:
    """The page: a section for each command, with its usage, text, arguments and options."""
    program: Any = typer.main.get_command(app)
    return "\n".join([_HEAD, *(line for name, command in program.commands.items() for line in _section(name, command))])


def _section(name: str, command: Any) -> Iterator[str]:
    """`command` is typer's; its stub does not name the type."""
    context = command.make_context(name, [], resilient_parsing=True)
    usage = usage_of(name, command, context)
    yield f"## dynalign {name}\n\n```\ndynalign {usage}\n```\n\n{inspect.cleandoc(command.help)}\n"
    for parameter in command.params:
        names, text = describe_parameter(parameter, context)
        yield f"- `{names}`: {text}"
    yield ""


def usage_of(name: str, command: Any, context: Any) -> str:
    """Name and metavariables of a command: `logs [OPTIONS] [RUN]`."""
    pieces = (piece.replace("{", "").replace("}", "") for piece in command.collect_usage_pieces(context))
    return " ".join([name, *pieces])


def describe_parameter(parameter: Any, context: Any) -> tuple[str, str]:
    """Names of an argument or option, and its help as a sentence."""
    names, text = parameter.get_help_record(context)
    if parameter.param_type_name == "argument":
        names = names.split(" <")[0]
    return names.replace(" range>", ">"), _sentence(text)


def _sentence(text: str) -> str:
    """The help without what the usage says already; limits and defaults in parentheses."""
    text, _, notes = text.replace("[required]", "").strip().partition("  [")
    return f"{text} ({re.sub('; ', ', ', notes.rstrip(']'))})" if notes else text


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or compare it and print a diff; returns the exit code."""
    return run_generator("Reference of the command line", render_reference(), argv)


if __name__ == "__main__":
    sys.exit(main())
