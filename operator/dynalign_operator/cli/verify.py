"""`dynalign verify`: whether the artifacts of a run are what they were, from the model's source to the export."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynalign_contract.exit_codes import ExitCode
from dynalign_operator.cli.terminal import count_of, say
from dynalign_operator.cli.workdirs import find_workdir, load_run

if TYPE_CHECKING:
    from dynalign_operator.provenance.attestation import IsSigned
    from dynalign_operator.provenance.lineage import Lineage


_CARD = "README.md"
"""A hub has a card of its own."""


def verify(
    place: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE|WORKDIR",
            help="Archive of `export-run`, or working folder. Default: the only run in runs/.",
            show_default=False,
        ),
    ] = None,
    *,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key", metavar="FILE", help="Public key of the archive's attestation (PEM).", show_default=False
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="FOLDER",
            help="Compare the model in this folder, such as a downloaded one, with the export.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check every digest along a run's lineage: model, prompts, rollouts, judgements, policy, export.

    Of a working folder every byte is read. Ends with 0 if all is as it was written, and with 11 otherwise.
    """
    is_bundle = place is not None and place.is_file() and place.suffix not in (".yaml", ".yml")
    name, lineage, problems, notes = _read_bundle(place, key) if is_bundle and place else _read_folder(place, key)
    if model is not None:
        problems += _compare_model(lineage, model)
    for problem in problems:
        say(f"{problem.rstrip('.')}.", err=True)
    for note in notes:
        say(note)
    if problems:
        say(f"{name}: {count_of(len(problems), 'problem')}.", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT))
    proven = sum(link.config is not None for link in lineage.links)
    say(
        f"{name}: {count_of(len(lineage.links), 'artifact')} as recorded, {proven} of them with the configuration that "
        "names their inputs."
    )


def _read_folder(place: Path | None, key: Path | None) -> "tuple[str, Lineage, list[str], list[str]]":
    from dynalign_contract.errors import CorruptArtifactError
    from dynalign_operator.provenance.folder import read_lineage, verify_bytes
    from dynalign_operator.provenance.lineage import check_lineage

    folder = find_workdir(place)
    run = load_run(folder)
    if key is not None:
        say("--key is for archives of `dynalign export-run --sign`; a working folder has no attestation.", err=True)
        raise typer.Exit(int(ExitCode.BAD_CONFIG))
    try:
        lineage = read_lineage(run, folder)
    except CorruptArtifactError as error:
        say(str(error), err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT)) from error
    damaged = [text for link in lineage.links if (text := verify_bytes(folder, link.artifact)) is not None]
    return run.metadata.name, lineage, [*check_lineage(lineage), *damaged], []


def _read_bundle(file: Path, key: Path | None) -> "tuple[str, Lineage, list[str], list[str]]":
    from dynalign_operator.provenance.attestation import AttestationError
    from dynalign_operator.provenance.bundle import BundleError, read_bundle
    from dynalign_operator.provenance.checks import check_attestation
    from dynalign_operator.provenance.lineage import check_lineage

    try:
        bundle = read_bundle(file)
        problems, notes = check_attestation(bundle, None if key is None else _public_key(key))
    except (BundleError, AttestationError) as error:
        say(f"{str(error).rstrip('.')}.", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT)) from error
    except OSError as error:
        say(f"{error.filename} cannot be read ({error.strerror}).", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT)) from error
    except ModuleNotFoundError as error:
        say(f"a signature needs {error.name}: install dynalign[sign].", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT)) from error
    return bundle.run.metadata.name, bundle.lineage, [*check_lineage(bundle.lineage), *problems], notes


def _public_key(file: Path) -> "IsSigned":
    from dynalign_operator.provenance.keys import read_public_key

    return read_public_key(file)


def _compare_model(lineage: "Lineage", model: Path) -> list[str]:
    from dynalign_contract.files import sha256_of

    if lineage.export is None or not lineage.export.manifests:
        return ["the run has not exported a model with which a folder could be compared"]
    problems = []
    for file in lineage.export.manifests[0].files:
        try:
            if sha256_of(model / file.name) != file.sha256 and file.name != _CARD:
                problems.append(f"{model / file.name} is not the file that the run exported")
        except OSError as error:
            problems.append(f"{model / file.name} cannot be read ({error.strerror})")
    return problems
