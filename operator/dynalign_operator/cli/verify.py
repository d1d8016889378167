"""`dynalign verify`: whether the artifacts of a run are what they were, from the model's source to the export."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynalign_contract.exit_codes import ExitCode
from dynalign_operator.cli.terminal import count_of, print_json, say
from dynalign_operator.cli.workdirs import find_workdir, load_run

if TYPE_CHECKING:
    from dynalign_contract.rescore import RescoreReport
    from dynalign_operator.provenance.attestation import IsSigned
    from dynalign_operator.provenance.lineage import Lineage


_CARD = "README.md"
"""A hub has a card of its own."""

RescoreOption = Annotated[
    int,
    typer.Option("--rescore", metavar="N", min=0, help="Have the recorded judge score N recorded answers again."),
]
ToleranceOption = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        metavar="POINTS",
        min=0,
        help="Difference of a score (0 to 9) that --rescore allows. Default: 0.25; 1 for votes and endpoints.",
        show_default=False,
    ),
]


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
    rescore: RescoreOption = 0,
    tolerance: ToleranceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Check every digest along a run's lineage: model, prompts, rollouts, judgements, policy, export.

    Of a working folder every byte is read. Ends with 0 if all is as it was written, and with 11 otherwise.
    """
    is_bundle = place is not None and place.is_file() and place.suffix not in (".yaml", ".yml")
    name, lineage, problems, notes = _read_bundle(place, key) if is_bundle and place else _read_folder(place, key)
    if model is not None:
        problems += _compare_model(lineage, model)
    report = _rescore(place, lineage, rescore, tolerance, is_bundle=is_bundle, is_whole=not problems)
    found = Findings(name, lineage, [text.rstrip(".") for text in problems], notes, report)
    if as_json:
        _print_json(found)
    else:
        _print(found)
    if found.all_problems:
        raise typer.Exit(int(ExitCode.BAD_INPUT))


@dataclass(frozen=True)
class Findings:
    """What was found out about a run."""

    name: str
    lineage: "Lineage"
    problems: list[str]
    """What the digests say to be wrong."""
    notes: list[str]
    rescored: "RescoreReport | None"
    """None where no answer was to be scored again."""

    @property
    def proven(self) -> int:
        """Artifacts whose configuration is known."""
        return sum(link.config is not None for link in self.lineage.links)

    @property
    def all_problems(self) -> list[str]:
        """What is wrong with digests and with scores, in sentences without their dots."""
        from dynalign_operator.cli.rescore import problems_of

        return self.problems + ([] if self.rescored is None else problems_of(self.rescored))


def _print(found: Findings) -> None:
    from dynalign_operator.cli.rescore import summary_of

    for problem in found.all_problems:
        say(f"{problem}.", err=True)
    for note in found.notes:
        say(note)
    if found.rescored is not None:
        say(f"{found.name}: {summary_of(found.rescored)}")
    if found.all_problems:
        say(f"{found.name}: {count_of(len(found.all_problems), 'problem')}.", err=True)
        return
    say(
        f"{found.name}: {count_of(len(found.lineage.links), 'artifact')} as recorded, {found.proven} of them with the "
        "configuration that names their inputs."
    )


def _print_json(found: Findings) -> None:
    rescored = None if found.rescored is None else found.rescored.model_dump(mode="json")
    answer = {
        "run": found.name,
        "artifacts": len(found.lineage.links),
        "withConfiguration": found.proven,
        "problems": found.problems,
        "notes": found.notes,
        "rescore": rescored,
    }
    print_json(json.dumps(answer, indent=2))


def _rescore(
    place: Path | None, lineage: "Lineage", count: int, tolerance: float | None, *, is_bundle: bool, is_whole: bool
) -> "RescoreReport | None":
    """Scores of today beside the recorded ones; None where none are asked for, or the digests are wrong already."""
    if count == 0:
        return None
    if is_bundle:
        say("--rescore needs the run's folder: an archive of `dynalign export-run` holds no answers.", err=True)
        raise typer.Exit(int(ExitCode.BAD_CONFIG))
    if not is_whole:
        return None
    from dynalign_operator.cli.rescore import rescore

    return rescore(find_workdir(place), lineage, count, tolerance)


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
