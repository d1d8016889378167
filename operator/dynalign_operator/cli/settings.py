"""The option --set of the commands that read a run file."""

from typing import Annotated

import typer

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Set a field of the run in place of the file's, with a value in YAML; null removes it. Repeatable.",
        show_default=False,
    ),
]
"""Fields that are set from the command line, such as `spec.model.uri=./model`; None for none."""
