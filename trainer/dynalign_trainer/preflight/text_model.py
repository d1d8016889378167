"""`python -m dynalign_trainer.preflight.text_model MODEL FOLDER`: writes the text model of a checkpoint.

Checkpoints that also read images keep their text model under names of their own, and so do some that were published
before transformers had their architecture. The folder has the names that the model has in memory. The whole checkpoint
is loaded, in its own number format.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import BadInputError, StageError
from dynalign_contract.sources import HubSource, SourceError, parse_source

_MODULE: Final = "dynalign_trainer.preflight.text_model"


def text_model_remedy(uri: str) -> str:
    """What to do about a checkpoint whose names are not those of its text model; the command is whole for a model on a
    hub and for a folder of this machine."""
    source = _name_source(uri)
    target = f"{Path(source).name}-text"
    return (
        f"Write its text model into a folder, `python -m {_MODULE} {source} {target}`, and name that in spec.model.uri."
    )


def _name_source(uri: str) -> str:
    """What transformers calls the model: its repository, or its folder."""
    try:
        source = parse_source(uri)
    except SourceError:
        return uri
    return source.repository if isinstance(source, HubSource) else uri


def write_text_model(source: str, target: Path) -> None:
    """Write text model, tokenizer and chat template. Raises BadInputError where the checkpoint has no text model."""
    from transformers import AutoTokenizer

    load_text_model(source).save_pretrained(target, save_original_format=False)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)


def load_text_model(source: str) -> Any:
    """The causal language model of a checkpoint. Raises BadInputError where transformers has none."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    config = AutoConfig.from_pretrained(source)
    text = config.get_text_config()
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise BadInputError(
            f"transformers has no causal language model of the model_type {text.model_type}, which the text model of "
            f"{source} is of. Name another model."
        )
    if _is_text_alone(MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None), text):
        return AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    whole = AutoModelForImageTextToText.from_pretrained(source, dtype="auto")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(text, dtype=whole.dtype)
    model.base_model.load_state_dict(whole.get_decoder().state_dict(), assign=True)
    model.get_output_embeddings().load_state_dict(whole.get_output_embeddings().state_dict(), assign=True)
    model.tie_weights()
    return model


def _is_text_alone(kind: Any, text: Any) -> bool:
    """Whether the class that transformers takes for the whole checkpoint is already the one of its text model."""
    return kind is not None and kind.config_class is type(text)


def main() -> int:
    """Write one text model; the exit code is that of a stage which refuses it."""
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("model", metavar="MODEL", help="a folder, or a repository of a hub")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where the text model is written; must not exist")
    given = parser.parse_args()
    if given.folder.exists():
        parser.error(f"{given.folder} exists already; name a folder that does not")
    try:
        write_text_model(given.model, given.folder)
    except StageError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
