"""What is published of a run: the exported model, or its data set, written from what the stages have left."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dynalign_contract.config import ExportParams, StageConfig
from dynalign_contract.errors import BadInputError
from dynalign_contract.manifest import Manifest, describe_file, read_listed, write_manifest
from dynalign_contract.settings import PublishContent
from dynalign_contract.stages import Stage
from dynalign_report.data_set import write_data_set
from dynalign_trainer.export.pushing import Export

DATA_FOLDER: Final = ".published-data"
"""Within the run's folder, while the data set is published: a pod has no other place for it."""


@contextmanager
def open_contents(config: StageConfig, params: ExportParams, root: Path) -> Iterator[dict[PublishContent, Export]]:
    """What the places of `params` ask for. Raises BadInputError for an empty data set, and CorruptArtifactError."""
    wanted = {target.content for target in params.publish}
    folder, data = root / config.folder, root / DATA_FOLDER
    found: dict[PublishContent, Export] = {}
    try:
        if PublishContent.MODEL in wanted:
            found[PublishContent.MODEL] = Export(config.run, folder, read_listed(folder))
        if PublishContent.DATA in wanted:
            shutil.rmtree(data, ignore_errors=True)
            manifest = write_data(root, config, params.model_uri, data)
            found[PublishContent.DATA] = Export(config.run, data, manifest, PublishContent.DATA)
        yield found
    finally:
        shutil.rmtree(data, ignore_errors=True)


def write_data(root: Path, config: StageConfig, model: str, folder: Path) -> Manifest:
    """Write the data set of the run below `root`, with a manifest; the same run gives the same bytes."""
    folder.mkdir()
    size = write_data_set(root, config.run, model, folder, margin=0.0)
    if size.answers == 0:
        raise BadInputError(
            f"spec.export.publish asks for the run's data, and {root / 'iterations'} has no judged answers. Remove the "
            "entry with `content: Data`, or keep the artifacts of at least one iteration until the run ends."
        )
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    manifest = Manifest(
        stage=Stage.EXPORT,
        config_digest=config.digest,
        files=tuple(describe_file(folder, name) for name in names),
    )
    write_manifest(folder, manifest)
    return manifest
