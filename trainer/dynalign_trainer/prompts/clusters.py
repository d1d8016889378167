"""Prompts that mean about the same: mean token vectors, and clusters around the first prompt of each."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dynalign_contract.errors import BadInputError
from dynalign_contract.settings import ClusterSettings

Vector = NDArray[np.float32]
Embed = Callable[[str], Vector]
"""A text's unit vector, or the zero vector of a text without tokens."""

_NAMES: Final = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")


class Clusters:
    """Leader clustering: a text belongs to the first earlier text that it resembles, else it begins a cluster."""

    def __init__(self, settings: ClusterSettings, embed: Embed) -> None:
        self._settings = settings
        self._embed = embed
        self._leaders: list[Vector] = []
        self._sizes: list[int] = []

    def has_room(self, text: str) -> bool:
        """Whether the text's cluster may have one more."""
        found = self._find(self._embed(text))
        return found is None or self._sizes[found] < self._settings.most

    def add(self, text: str) -> None:
        """Put a text into its cluster, which may then be fuller than it should be."""
        vector = self._embed(text)
        found = self._find(vector)
        if found is None:
            self._leaders.append(vector)
            self._sizes.append(1)
        else:
            self._sizes[found] += 1

    def remove(self, text: str) -> None:
        """Take back a text that was added; its cluster stays where it is."""
        found = self._find(self._embed(text))
        if found is not None:
            self._sizes[found] -= 1

    def _find(self, vector: Vector) -> int | None:
        if not self._leaders:
            return None
        cosines = np.stack(self._leaders) @ vector
        near = np.flatnonzero(cosines >= self._settings.similarity)
        return int(near[0]) if len(near) else None


def mean_of_tokens(tokenizer: Any, table: NDArray[np.float32]) -> Embed:
    """Embeds by the mean of the tokens' vectors minus that of all tokens; `table` has shape (tokens, width).

    The common part of all vectors, taken off, would make every two texts look alike (Mu and Viswanath,
    arXiv 1702.01417).
    """
    centre = table.mean(axis=0)

    def embed(text: str) -> Vector:
        ids = tokenizer.encode(text, add_special_tokens=False)
        vector = table[ids].mean(axis=0) - centre if ids else np.zeros_like(centre)
        norm = float(np.linalg.norm(vector))
        unit: Vector = vector / norm if norm > 0 else np.zeros_like(centre)
        return unit

    return embed


def read_token_vectors(folder: Path) -> NDArray[np.float32]:
    """The input embedding of the model in `folder`, shape (tokens, width). Raises BadInputError when there is none."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            if name := _first(tensors.keys()):
                table: NDArray[np.float32] = tensors.get_tensor(name).float().numpy()
                return table
    raise BadInputError(
        f"no tensor in {folder} is called like an input embedding ({', '.join(_NAMES)}), which "
        "prompts.dedup.clusters needs. Remove that setting."
    )


def _first(names: Iterable[str]) -> str | None:
    return next((name for name in sorted(names) if name.endswith(_NAMES)), None)
