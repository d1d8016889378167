"""The export stage: write the chosen policy, an adapter merged, as a folder that anyone can load."""

import shutil
from typing import Final

from dynalign_contract.config import ExportParams
from dynalign_contract.files import atomic_path, write_bytes
from dynalign_contract.inputs import Input
from dynalign_contract.metrics import ExportMetrics
from dynalign_trainer.export.check import check_export
from dynalign_trainer.export.model_card import build_model_card
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.files import read_model_files
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.models.merging import TrainedWeights, check_fit, file_tensors, load_trained_weights
from dynalign_trainer.models.origin import read_origin
from dynalign_trainer.preflight.model import check_model
from dynalign_trainer.runtime.context import StageContext, StageOutput

_CARD: Final = "README.md"
_READABLE: Final = 0o644
"""Others serve the model: pods of another user, on the same volume."""


def run(context: StageContext[ExportParams]) -> StageOutput[ExportParams]:
    """Write safetensors weights, configuration, tokenizer and a model card. Inputs: model, the policy.

    All but the weights and the card are the base model's files, byte for byte. Raises BadInputError when the policy
    does not fit the base model, ExportError when the export is not the base model in all but its weights' values.
    """
    params, base, target = context.params, context.input(Input.MODEL), context.folder
    policy = context.policy_folder(params.policy)
    context.telemetry.begin()
    files = read_model_files(base)
    moved = _write_weights(context, files.weights, None if policy is None else load_trained_weights(policy))
    for name in files.metadata:
        with atomic_path(target / name) as temporary:
            shutil.copyfile(base / name, temporary)
            temporary.chmod(_READABLE)
    chat = ChatTemplate(load_tokenizer(base), context.config.chat)
    write_bytes(target / _CARD, build_model_card(context.config.run, params, chat, read_origin(base)).encode())
    parameters = check_model(target)
    check_export(base, target)
    written = [*files.all, _CARD]
    return StageOutput(
        files=dict.fromkeys(written, 0),
        metrics={
            ExportMetrics.parameters: parameters,
            ExportMetrics.bytes: sum((target / name).stat().st_size for name in written),
            ExportMetrics.relative_change: moved,
        },
    )


def _write_weights(context: StageContext[ExportParams], files: tuple[str, ...], change: TrainedWeights | None) -> float:
    """Write the trained weights in the base model's own number formats and files.

    SIGTERM is obeyed between two files. Returns ‖W' - W‖ / ‖W‖ over the trained weights, before rounding; 0 for the
    base model.
    """
    from safetensors.torch import save_file

    base = context.input(Input.MODEL)
    if change is not None:
        check_fit(change, base)
    moved = size = 0.0
    for done, file in enumerate(files):
        context.telemetry.progress(done, len(files))
        context.check_stop()
        before = dict(file_tensors(base / file))
        after = before if change is None else {name: change.apply(name, w) for name, w in before.items()}
        for name in change.names & before.keys() if change is not None else ():
            old = before[name].double()
            moved += float((after[name].double() - old).norm()) ** 2
            size += float(old.norm()) ** 2
        stored = {name: weight.to(before[name].dtype).contiguous() for name, weight in after.items()}
        with atomic_path(context.folder / file) as temporary:
            save_file(stored, temporary, metadata={"format": "pt"})
            temporary.chmod(_READABLE)  # safetensors leaves it to the owner alone
    context.telemetry.progress(len(files), len(files))
    return (moved / size) ** 0.5 if size else 0.0
