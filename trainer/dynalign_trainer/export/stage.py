"""The export stage: write the chosen policy, an adapter merged, as a folder that anyone can load."""

import shutil
from pathlib import Path
from typing import Final

from dynalign_contract.config import ExportParams
from dynalign_contract.files import atomic_path, write_bytes
from dynalign_contract.inputs import Input
from dynalign_contract.metrics import ExportMetrics
from dynalign_trainer.export.check import check_export
from dynalign_trainer.export.model_card import build_model_card
from dynalign_trainer.export.weights import READABLE, WeightChange, write_weights
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.files import read_model_files
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.models.merging import TrainedWeights, check_fit, load_trained_weights
from dynalign_trainer.models.origin import read_origin
from dynalign_trainer.preflight.model import check_model
from dynalign_trainer.runtime.context import StageContext, StageOutput

_CARD: Final = "README.md"
_LOST: Final = 0.5
"""Rounding errors, in units of the change that training made, from which the export warns."""


def run(context: StageContext[ExportParams]) -> StageOutput[ExportParams]:
    """Write safetensors weights, configuration, tokenizer and a model card. Inputs: model, the policy.

    All but the weights and the card are the base model's files, byte for byte. Raises BadInputError when the policy
    does not fit the base model, ExportError when the export is not the base model in all but its weights' values.
    """
    params, base, target = context.params, context.input(Input.MODEL), context.folder
    policy = context.policy_folder(params.policy)
    context.telemetry.begin()
    files = read_model_files(base)
    change = write_weights(context, files.weights, _trained_weights(policy, base))
    _warn_of_rounding(context, change)
    for name in files.metadata:
        with atomic_path(target / name) as temporary:
            shutil.copyfile(base / name, temporary)
            temporary.chmod(READABLE)
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
            ExportMetrics.relative_change: change.relative,
            ExportMetrics.rounding_error: change.rounding_error,
        },
    )


def _trained_weights(policy: Path | None, base: Path) -> TrainedWeights | None:
    """The policy's weights; None for the base model's. Raises BadInputError when they do not fit the base model."""
    if policy is None:
        return None
    trained = load_trained_weights(policy)
    check_fit(trained, base)
    return trained


def _warn_of_rounding(context: StageContext[ExportParams], change: WeightChange) -> None:
    policy = context.policy_folder(context.params.policy)
    if policy is None or change.rounding_error < _LOST:
        return
    context.warn(
        f"the base model's number format keeps little of what was trained: rounding moves the exported weights by "
        f"{change.rounding_error:.0%} of the change that training made. The exported model may answer like the base "
        f"model, and evaluate measured the policy as it is in {policy}, before rounding. Serve that folder with the "
        "base model instead, or train further from it (a larger training.learningRate, more iterations)."
    )
