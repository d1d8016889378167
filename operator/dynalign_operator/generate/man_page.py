"""operator/man/dynalign.1, generated from the argument parser: `--write FILE`, or `--check FILE` for drift."""

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import typer

from dynalign_operator.cli.main import app
from dynalign_operator.generate.cli_page import describe_parameter, usage_of
from dynalign_operator.generate.generator import run_generator

_HEAD: Final = """\
.\\" Generated from operator/dynalign_operator/cli by `make generate`; change the commands instead.
.TH DYNALIGN 1
.SH NAME
dynalign \\- check, run and inspect AlignmentRuns: a language model that aligns itself
.SH SYNOPSIS
.B dynalign
.I COMMAND
.RI [ ARGUMENTS ]
.br
.B kubectl dynalign
.I COMMAND
.RI [ ARGUMENTS ]
.SH DESCRIPTION
A run is an AlignmentRun in a Kubernetes cluster, or a working folder of this machine. As a plugin of kubectl the
commands that look at runs take names of the cluster; paths still name folders and files.
.SH COMMANDS"""
_FOOT: Final = """\
.SH ENVIRONMENT
.TP
.B KUBECONFIG
The kubeconfig file, or several, as for kubectl.
.TP
.B DYNALIGN_CACHE
Folder in which `dynalign run` keeps models and compiled kernels between runs. Default: ~/.cache/dynalign.
.SH EXIT STATUS
0: done; of run and watch: the run is complete or suspended. 10: the configuration is wrong. 11: an input is wrong, or
there is no such run or log. 12: a gate refused. 13: a stage ended twice with the same unforeseen error. 75: another
dynalign process uses the folder. 130, 143: stopped by a signal. 1: anything else.
.SH SEE ALSO
.BR kubectl (1)"""


def render_man_page() -> str:
    """The page in the macros of man(7)."""
    program: Any = typer.main.get_command(app)
    sections = (line for name, command in program.commands.items() for line in _section(name, command))
    return "\n".join([_HEAD, *sections, _FOOT, ""])


def _section(name: str, command: Any) -> Iterator[str]:
    """`command` is typer's; its stub does not name the type."""
    context = command.make_context(name, [], resilient_parsing=True)
    yield f".SS dynalign {_escape(usage_of(name, command, context))}"
    for number, paragraph in enumerate(inspect.cleandoc(command.help).split("\n\n")):
        yield from ([".PP"] if number else [])
        yield _escape(" ".join(paragraph.split()))
    for parameter in command.params:
        names, text = describe_parameter(parameter, context)
        yield f".TP\n.B {_escape(names)}"
        yield _escape(text)


def _escape(text: str) -> str:
    """A text as roff takes it for what it is: no escapes, no requests, hyphens that can be copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", escaped, flags=re.MULTILINE)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or compare it and print a diff; returns the exit code."""
    return run_generator("Man page of the command line", render_man_page(), argv)


if __name__ == "__main__":
    sys.exit(main())
