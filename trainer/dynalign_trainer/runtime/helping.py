"""Help for a stage of a rollout that one pod does alone: the others, which wait for it, do pieces of its work."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from dynalign_contract.caches import check_caches
from dynalign_contract.config import StageConfig
from dynalign_contract.layout import RunLayout
from dynalign_contract.manifest import read_manifest
from dynalign_contract.phases import Phase
from dynalign_contract.result import Metric, Outcome, StageResult
from dynalign_trainer.runtime.compile_cache import shared_compiled_code
from dynalign_trainer.runtime.context import Gang, StageContext
from dynalign_trainer.runtime.inputs import take_inputs
from dynalign_trainer.runtime.session import Session
from dynalign_trainer.runtime.telemetry import Telemetry, measured_times

HELP_EVERY_SECONDS: Final = 0.2
"""Between two looks for work, and for what others have done: a stage that is helped with may take seconds."""


class Helper(Protocol):
    """What a stage does in a pod that waits for its artifact."""

    def help(self) -> bool:
        """Do a piece of the work, if there is one; whether there was."""
        ...

    def close(self) -> None:
        """Clear up: the artifact is there."""
        ...


OpenHelper = Callable[[StageContext[Any]], Helper]


@dataclass(frozen=True)
class Helping:
    """A helper at work in this pod."""

    config: StageConfig
    helper: Helper
    telemetry: Telemetry

    @property
    def result(self) -> StageResult:
        """The time that it took so far; there is no artifact in it."""
        times = measured_times(self.config.stage, self.telemetry)
        metrics = tuple(Metric(name=metric.name, value=value) for metric, value in times.items())
        return StageResult(outcome=Outcome.SUCCEEDED, metrics=metrics)


@contextmanager
def opened_helper(
    config: StageConfig,
    session: Session,
    open_helper: OpenHelper,
    *,
    root: Path,
    port: int,
    stopping: threading.Event,
) -> Iterator[Helping]:
    """Verify the stage's inputs and open its helper, and serve /metrics until the block ends.

    The helper's folder is that of the pod that makes the artifact: nothing is written there. Raises what the stage
    itself would raise about its inputs.
    """
    telemetry = session.telemetry(config.stage)
    telemetry.phases.end(Phase.INTERPRETER)
    check_caches()
    server = telemetry.serve(port)
    try:
        inputs = take_inputs(config, root, Gang(), session, telemetry, asks_models=True)
        context = StageContext(
            config=config,
            params=config.params,
            layout=RunLayout(root),
            folder=root / config.folder,
            shard=0,
            inputs=inputs.folders,
            weights=inputs.weights,
            telemetry=telemetry,
            stopping=stopping,
            session=session,
        )
        with shared_compiled_code(os.environ, publishes=False):
            helping = Helping(config, open_helper(context), telemetry)
            telemetry.begin()
            telemetry.progress(1, 1)
            yield helping
        manifest = read_manifest(context.folder)
        if manifest is not None and manifest.config_digest == config.digest:
            helping.helper.close()
    finally:
        server.close()
