"""The export stage: write the chosen policy, an adapter merged, as a folder that anyone can load."""

import shutil
from typing import Final

from dynalign_contract.config import ExportParams
from dynalign_contract.files import write_bytes
from dynalign_trainer.context import StageContext, StageOutput
from dynalign_trainer.fetching.check import check_model
from dynalign_trainer.merging import Change, file_tensors, read_change
from dynalign_trainer.model_card import build_model_card

_READABLE: Final = 0o644
"""Others serve the model: pods of another user, on the same volume."""
_COPIED: Final = (
    "config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


def run(context: StageContext[ExportParams]) -> StageOutput:
    """Write safetensors weights, configuration, tokenizer and a model card. Inputs: model, the policy."""
    params, base, target = context.params, context.input("model"), context.folder
    for leftover in target.glob("[!.]*"):
        leftover.unlink()
    policy = None if params.policy.adapter is None else context.input(params.policy.version)
    context.telemetry.begin()
    moved = _write_weights(context, None if policy is None else read_change(policy))
    for name in _COPIED:
        if (base / name).is_file():
            shutil.copyfile(base / name, target / name)
    write_bytes(target / "README.md", build_model_card(context.config.run, params).encode())
    parameters = check_model(target)
    files = [path for path in sorted(target.iterdir()) if not path.name.startswith(".")]
    return StageOutput(
        files={path.name: 0 for path in files},
        metrics={
            "parameters": parameters,
            "bytes": sum(path.stat().st_size for path in files),
            "relative_change": moved,
        },
    )


def _write_weights(context: StageContext[ExportParams], change: Change | None) -> float:
    """Write the trained weights in the base model's own number formats and files.

    SIGTERM is obeyed between two files. Returns ‖W' - W‖ / ‖W‖ over the trained weights, before rounding; 0 for the
    base model.
    """
    from safetensors.torch import save_file

    moved = size = 0.0
    files = sorted(context.input("model").glob("*.safetensors"))
    for done, path in enumerate(files):
        context.telemetry.progress(done, len(files))
        context.check_stop()
        before = dict(file_tensors(path))
        after = before if change is None else {name: change.apply(name, w) for name, w in before.items()}
        for name in change.names & before.keys() if change is not None else ():
            old = before[name].double()
            moved += float((after[name].double() - old).norm()) ** 2
            size += float(old.norm()) ** 2
        stored = {name: weight.to(before[name].dtype).contiguous() for name, weight in after.items()}
        written = context.folder / path.name
        save_file(stored, written, metadata={"format": "pt"})
        written.chmod(_READABLE)  # safetensors leaves it to the owner alone
    context.telemetry.progress(len(files), len(files))
    if change is not None and size == 0.0:
        raise change.misfit("they have no tensor in common")
    return (moved / size) ** 0.5 if size else 0.0
