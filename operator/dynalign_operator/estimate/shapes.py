"""Sizes of models that people name by a URI, from what their published configurations say."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

from dynalign_contract.model_shape import ModelShape, shape_of


def known_shape(uri: str) -> ModelShape | None:
    """The sizes of a model that dynalign knows by its URI; None for all others."""
    name = uri.removeprefix("hf://").partition("@")[0].replace("bundled://", "bundled/").lower()
    config = known_configs().get(name)
    return None if config is None else shape_of(config)


@cache
def known_configs() -> Mapping[str, Mapping[str, Any]]:
    """`org/name` in lower case -> the part of its published config.json that the sizes follow from."""
    text = resources.files(__package__).joinpath("known_models.yaml").read_text()
    return {name.lower(): config for name, config in yaml.safe_load(text).items()}
