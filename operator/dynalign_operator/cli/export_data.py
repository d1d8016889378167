"""`dynalign export-data`: prompts, answers and scores of a run as a data set, with pairs for preference training."""

from pathlib import Path
from typing import Annotated

import typer

from dynalign_contract.exit_codes import ExitCode
from dynalign_operator.cli.terminal import count_of, say
from dynalign_operator.cli.workdirs import WorkdirArgument, find_workdir, load_run


def export_data(
    place: WorkdirArgument = None,
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="Folder to write.", show_default=False)
    ],
    margin: Annotated[
        float, typer.Option("--margin", min=0, help="Smallest difference of rewards, exclusive, that makes a pair.")
    ] = 0.0,
) -> None:
    """Write prompts, answers and scores as Parquet with a card, and pairs of a better and a worse answer.

    The library `datasets` loads the folder, with the configurations `answers` and `preferences`.
    """
    from dynalign_contract.errors import CorruptArtifactError

    folder = find_workdir(place)
    run = load_run(folder)
    try:
        from dynalign_report.data_set import write_data_set

        size = write_data_set(folder, run.metadata.name, run.spec.model.uri, output, margin=margin)
    except ModuleNotFoundError as error:
        say(f"a data set needs {error.name}: install dynalign[report].", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT)) from error
    except CorruptArtifactError as error:
        say(str(error), err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT)) from error
    except OSError as error:
        say(f"{output} cannot be written ({error.strerror}); name another folder with -o.", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT)) from error
    if not size.answers:
        say(f"{folder} has no judged answers yet.", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT))
    say(f"{output} holds {count_of(size.answers, 'answer')} and {count_of(size.preferences, 'preference pair')}.")
