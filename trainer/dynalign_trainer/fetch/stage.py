"""The fetch stage: bring the base model, and data of tasks, onto the volume; check that the model can be aligned."""

import os
from pathlib import Path
from typing import Final

from dynalign_contract.config import FetchParams, StageConfig
from dynalign_contract.errors import BadConfigError
from dynalign_contract.layout import SOURCE_FILE
from dynalign_contract.metrics import FetchMetrics
from dynalign_contract.preflight import PreflightReport
from dynalign_contract.settings import Quantized
from dynalign_contract.source_files import locate
from dynalign_contract.sources import BundledSource, HubSource, OciSource, S3Source, SourceError, parse_source
from dynalign_contract.strangers import clear_strangers
from dynalign_trainer.fetch.artifact import fetch_artifact
from dynalign_trainer.fetch.bucket import fetch_bucket
from dynalign_trainer.fetch.bundled import fetch_bundled
from dynalign_trainer.fetch.copying import Watch
from dynalign_trainer.fetch.dequantising import fetch_dequantised
from dynalign_trainer.fetch.folder import fetch_folder
from dynalign_trainer.fetch.hub import fetch_hub
from dynalign_trainer.fetch.task_data import fetch_task_data
from dynalign_trainer.models.files import read_model_files
from dynalign_trainer.preflight.checks import Inspection
from dynalign_trainer.preflight.model import check_model
from dynalign_trainer.runtime.context import StageContext, StageOutput

_RESUMED: Final = ("hf://", "s3://", "oci://")
"""Downloads go on where they were cut off, with the version that they began with."""


def run(context: StageContext[FetchParams]) -> StageOutput[FetchParams]:
    """Write a Hugging Face model folder: configuration, tokenizer, safetensors weights.

    Before that, beside it, the data of foreign tasks. The inspection of the model and of the user's files comes before
    the weights where possible: what can be refused comes before what takes long.
    """
    params, target = context.params, context.folder
    uri = params.uri

    def watch(done: int, total: int) -> None:
        context.telemetry.progress(done, total)
        context.check_stop()

    if not uri.startswith(_RESUMED):
        clear_strangers(target, ())  # what an earlier attempt copied may be gone from the source since
    config = context.config
    quantized = context.params.quantized
    inspection = Inspection(
        uri, context.params.preflight, config.engine, config.chat, context.check_stop, quantized=quantized
    )
    context.telemetry.begin()
    fetch_task_data(context.params.tasks, context.layout.tasks, watch)
    if quantized is Quantized.DEQUANTIZE:
        fetch_dequantised(lambda folder: fetch_model(params, folder, watch, inspection), uri, target, watch, inspection)
    else:
        fetch_model(params, target, watch, inspection)
    for note in inspection.findings.notes:
        context.warn(note)
    context.check_stop()
    parameters = check_model(target)
    record = [SOURCE_FILE] if (target / SOURCE_FILE).is_file() else []
    files = [*read_model_files(target).all, *record]
    size = sum((target / name).stat().st_size for name in files)
    context.telemetry.progress(size, size)
    return StageOutput(
        files=dict.fromkeys(files, 0),
        metrics={FetchMetrics.parameters: parameters, FetchMetrics.bytes: size},
        training=inspection.findings.training,
    )


def recheck(config: StageConfig, params: FetchParams, folder: Path) -> PreflightReport:
    """Check a model that was fetched before against the present settings, which are not part of its digest.

    Returns the notes for the user, and how the policy is trained. Raises StageError.
    """
    inspection = Inspection(params.uri, params.preflight, config.engine, config.chat, lambda: None)
    _inspect(inspection, folder)
    return inspection.findings.report()


def _inspect(inspection: Inspection, folder: Path) -> None:
    inspection.check(folder, {name: folder / name for name in read_model_files(folder).weights})


def fetch_model(params: FetchParams, target: Path, watch: Watch, inspection: Inspection) -> None:
    """Bring the model that `params.uri` names into the folder `target`, inspected before its weights where that can be.

    Raises StageError.
    """
    try:
        source = parse_source(params.uri)
    except SourceError as error:
        raise BadConfigError(f"spec.model.uri {error}.") from error
    match source:
        case HubSource():
            fetch_hub(source, target, watch, inspection)
        case S3Source():
            fetch_bucket(source, params.s3, target, watch, inspection)
        case OciSource():
            fetch_artifact(source, params.oci, target, watch, inspection)
        case BundledSource(name=name):
            fetch_bundled(name, target, watch)
            _inspect(inspection, target)
        case _:
            fetch_folder(locate(source, os.environ), target, watch, inspection)
