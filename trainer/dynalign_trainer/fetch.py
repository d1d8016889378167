"""The fetch stage: bring the base model, and data of tasks, onto the volume; check that the model can be aligned."""

from pathlib import Path

from dynalign_contract.config import FetchParams
from dynalign_contract.errors import BadConfigError
from dynalign_contract.layout import SOURCE_FILE
from dynalign_trainer.context import StageContext, StageOutput
from dynalign_trainer.fetching.bundled import fetch_bundled
from dynalign_trainer.fetching.check import check_model
from dynalign_trainer.fetching.folder import claim_folder, fetch_folder
from dynalign_trainer.fetching.hub import fetch_hub
from dynalign_trainer.fetching.task_data import fetch_task_data
from dynalign_trainer.model_files import read_model_files


def run(context: StageContext[FetchParams]) -> StageOutput:
    """Write a Hugging Face model folder: configuration, tokenizer, safetensors weights.

    Before that, beside it, the data of foreign tasks: what can be refused comes before what takes long.
    """
    uri, target = context.params.uri, context.folder

    def watch(done: int, total: int) -> None:
        context.telemetry.progress(done, total)
        context.check_stop()

    context.telemetry.begin()
    fetch_task_data(context.params.tasks, context.layout.tasks, watch)
    scheme, separator, rest = uri.partition("://")
    if not separator:
        fetch_folder(Path(uri), target, watch)
    elif scheme == "bundled":
        fetch_bundled(rest, target, watch)
    elif scheme == "pvc":
        fetch_folder(claim_folder(uri), target, watch)
    elif scheme == "hf":
        fetch_hub(uri, target, watch)
    else:
        raise BadConfigError(
            f"spec.model.uri: {uri} begins with {scheme}://; write hf://, pvc://, bundled:// or a path."
        )
    context.check_stop()
    parameters = check_model(target)
    record = [SOURCE_FILE] if (target / SOURCE_FILE).is_file() else []
    files = [*read_model_files(target).all, *record]
    size = sum((target / name).stat().st_size for name in files)
    context.telemetry.progress(size, size)
    return StageOutput(files=dict.fromkeys(files, 0), metrics={"parameters": parameters, "bytes": size})
