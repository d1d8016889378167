"""`dynalign export-run`: lineage, configuration and report of a run as one file, signed if wanted."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynalign_contract.exit_codes import ExitCode
from dynalign_operator.cli.terminal import count_of, say
from dynalign_operator.cli.workdirs import WorkdirArgument, find_workdir, load_run

if TYPE_CHECKING:
    from dynalign_operator.api.v1alpha1 import AlignmentRun
    from dynalign_operator.provenance.lineage import Lineage


def export_run(
    place: WorkdirArgument = None,
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Archive to write.", show_default=False)
    ],
    sign: Annotated[
        Path | None,
        typer.Option(
            "--sign",
            metavar="KEY",
            help="Add an in-toto attestation, signed with this private key (Ed25519 or ECDSA, PEM).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Bundle specification, status, manifests with their digests, configurations and report of a run.

    The archive holds no weights and no rows. The same run gives the same bytes.
    """
    from dynalign_contract.errors import CorruptArtifactError
    from dynalign_contract.layout import RunLayout
    from dynalign_operator.provenance.attestation import AttestationError
    from dynalign_operator.provenance.bundle import build_index, bundled_files, write_bundle
    from dynalign_operator.provenance.folder import read_lineage

    folder = find_workdir(place)
    stored = load_run(folder)
    report = RunLayout(folder).report
    try:
        lineage = read_lineage(stored, folder)
        files = bundled_files(stored, lineage, report.read_bytes() if report.is_file() else None)
        index = build_index(stored.metadata.name, files)
        attestation = None if sign is None else _attest(stored, lineage, index, sign)
        write_bundle(output, files, index, attestation)
    except ModuleNotFoundError as error:
        say(f"a signature needs {error.name}: install dynalign[sign].", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT)) from error
    except (CorruptArtifactError, AttestationError) as error:
        say(f"{str(error).rstrip('.')}.", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT)) from error
    except OSError as error:
        say(f"{error.filename or output} cannot be used ({error.strerror}).", err=True)
        raise typer.Exit(int(ExitCode.BAD_INPUT)) from error
    signed = ", signed" if attestation is not None else ""
    say(
        f"{output} holds {count_of(len(lineage.links), 'artifact')} of {stored.metadata.name} by their digests{signed}."
    )


def _attest(run: "AlignmentRun", lineage: "Lineage", index: bytes, key: Path) -> bytes:
    from importlib.metadata import version

    from dynalign_operator.provenance.attestation import build_envelope, build_statement
    from dynalign_operator.provenance.keys import read_private_key

    return build_envelope(build_statement(run, lineage, index, version("dynalign")), read_private_key(key))
