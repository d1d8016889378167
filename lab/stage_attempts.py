"""One attempt of a stage on a folder, without the life cycle around it."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynalign_contract.config import StageConfig
from dynalign_contract.layout import RunLayout
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.telemetry import Telemetry


def attempt(
    config: StageConfig,
    root: Path,
    *,
    folder: Path | None = None,
    shard: int = 0,
    inputs: Mapping[str, Path] | None = None,
    telemetry: Telemetry | None = None,
) -> StageContext[Any]:
    """What the life of a stage would hand to the stage, on the run's folder `root`.

    `folder` is where the stage writes, by default that of its artifact; `inputs` are by default those of the
    configuration, which nobody verifies.
    """
    found = {name: root / ref.path for name, ref in config.inputs.items()} if inputs is None else inputs
    return StageContext(
        config=config,
        params=config.params,
        layout=RunLayout(root),
        folder=root / config.folder if folder is None else folder,
        shard=shard,
        inputs={name: (path,) for name, path in found.items()},
        telemetry=telemetry or Telemetry(),
        stopping=threading.Event(),
    )
