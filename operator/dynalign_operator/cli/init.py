"""`dynalign init`: a first run file, to be changed and run."""

from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from dynalign_operator.cli.terminal import say


class Example(StrEnum):
    """The examples of the repository that an installation brings; `make generate` copies them beside this module."""

    TUTORIAL = "tutorial"
    SMOLLM2 = "smollm2"
    KUBERNETES_CPU = "kubernetes-cpu"


def init(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="File to write. Default: EXAMPLE.yaml.", show_default=False)
    ] = None,
    example: Annotated[
        Example,
        typer.Option(
            help="tutorial: one iteration towards an objective that stands in the file; smollm2: the demo, with the "
            "built-in objective; kubernetes-cpu: a run for a cluster without GPUs."
        ),
    ] = Example.TUTORIAL,
) -> None:
    """Write a run file to begin with, and say how to check and start it.

    Exit code 10: there is such a file already; it stays as it is.
    """
    from dynalign_contract.exit_codes import ExitCode

    target = file or Path(f"{example}.yaml")
    text = read_example(example).replace(f"examples/{example}.yaml", str(target))
    try:
        with target.open("x") as output:
            output.write(text)
    except FileExistsError as error:
        say(f"{target} exists already and was left as it is. Name another file: dynalign init FILE", err=True)
        raise typer.Exit(ExitCode.BAD_CONFIG) from error
    except OSError as error:
        say(f"{target} cannot be written: {error.strerror}. Name another file: dynalign init FILE", err=True)
        raise typer.Exit(ExitCode.BAD_CONFIG) from error
    commands = [f"dynalign validate {target}", *(line[1:].strip() for line in text.splitlines() if line[:4] == "#   ")]
    say("\n  ".join([f"{target} is written. Change what you like, then:", *commands]))


def read_example(example: Example) -> str:
    """The run file as it stands in the repository's `examples`."""
    return (files("dynalign_operator.cli") / "examples" / f"{example}.yaml").read_text()
