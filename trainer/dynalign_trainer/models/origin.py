"""Where a fetched model came from: `source.json` in its folder, a part of the artifact."""

from pathlib import Path

from pydantic import Field, ValidationError

from dynalign_contract.base import Model
from dynalign_contract.files import write_bytes
from dynalign_contract.layout import SOURCE_FILE


class Origin(Model):
    """The source of a model, and what fetch has made of it."""

    uri: str
    """The source as the run names it."""
    commit: str | None = Field(default=None, exclude_if=lambda commit: commit is None)
    """Commit of a hub's repository; None for other sources."""
    quantized: str | None = Field(default=None, exclude_if=lambda method: method is None)
    """How the weights were quantised before fetch converted them to BFloat16; None where they are as they came."""


def read_origin(folder: Path) -> Origin | None:
    """The origin of the model in a folder; None where the folder does not tell."""
    try:
        return Origin.model_validate_json((folder / SOURCE_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_origin(folder: Path, origin: Origin) -> None:
    """Write the origin beside the model."""
    write_bytes(folder / SOURCE_FILE, origin.to_json(indent=2).encode())
