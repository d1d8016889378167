"""Whether transformers itself has the code of a model, and can train it as a causal language model."""

from pathlib import Path
from typing import Any

from dynalign_contract.errors import BadInputError
from dynalign_trainer.models.folder import read_json
from dynalign_trainer.preflight.text_model import text_model_remedy


def check_architecture(folder: Path, where: str) -> None:
    """Make sure that no code beside the weights is needed.

    An `auto_map` alone does not matter: many models keep theirs from the time before transformers had them. `where` is
    the model as the run file names it. Raises BadInputError naming the field of config.json.
    """
    path = folder / "config.json"
    config = read_json(path)
    kind = config.get("model_type")
    _check_task(path, config)
    if not isinstance(kind, str):
        raise BadInputError(
            f"{path} has no model_type, so nothing says which architecture it is. Save the model again with "
            "transformers (save_pretrained), or name another one in spec.model.uri."
        )
    if _is_known(kind):
        return
    if "auto_map" in config:
        raise BadInputError(
            f"{path} asks for code of its own (auto_map, model_type {kind}), which dynalign never runs. Name a model "
            "whose architecture is part of transformers in spec.model.uri."
        )
    text = config.get("text_config")
    inner = text.get("model_type") if isinstance(text, dict) else None
    remedy = "Name a text model whose architecture is part of it in spec.model.uri."
    if isinstance(inner, str) and _is_known(inner):
        remedy = f"It has one of {inner}, which is in this model. {text_model_remedy(where)}"
    raise BadInputError(
        f"transformers {_version()} has no causal language model of the model_type {kind} ({path}). {remedy}"
    )


def _check_task(path: Path, config: dict[str, Any]) -> None:
    architectures = config.get("architectures") or []
    suffixes = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
    if config.get("is_encoder_decoder") or not any(str(name).endswith(suffixes) for name in architectures):
        raise BadInputError(f"{path} names the architectures {architectures}; a causal language model is needed.")


def _is_known(kind: str) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return kind in CONFIG_MAPPING_NAMES and kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _version() -> str:
    import transformers

    return str(transformers.__version__)
