"""The card of a published model or data set: that of the export, with its licence, its digest, and how to check it."""

from typing import Final

from dynalign_contract.settings import PublishContent
from dynalign_trainer.export.pushing import Export

CARD: Final = "README.md"
_FENCE: Final = "---\n"


def build_hub_card(export: Export, licence: str | None) -> bytes:
    """Markdown with the YAML front matter of hub model cards."""
    _, front, text = (export.folder / CARD).read_text().split(_FENCE, 2)
    license_line = "" if licence is None else f"license: {licence}\n"
    if export.content is PublishContent.DATA:
        return f"{_FENCE}{license_line}{front}{_FENCE}{text}{_data_provenance(export)}".encode()
    provenance = f"""
## Provenance

The files are those that the run `{export.run}` exported, with the digest `{export.manifest.digest}`, this card aside.
`dynalign export-run WORKDIR -o run.tar` bundles the specification, with which the run can be repeated, and the digests
of everything that the model was made from; `dynalign verify run.tar --model FOLDER` compares a downloaded copy.
"""
    return f"{_FENCE}{license_line}{front}{_FENCE}{text}{provenance}".encode()


def _data_provenance(export: Export) -> str:
    return f"""
## Provenance

The files are those that the run `{export.run}` published, with the digest `{export.manifest.digest}`, this card aside.
`dynalign export-data WORKDIR -o FOLDER` writes them anew from the run's folder.
"""
