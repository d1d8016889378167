"""Prompts that mean about the same: weighted mean token vectors, and clusters around the first prompt of each."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dynalign_contract.errors import BadInputError
from dynalign_contract.objective import Objective
from dynalign_contract.settings import ClusterSettings
from dynalign_trainer.models.files import read_tensor_files

Vector = NDArray[np.float32]
Embed = Callable[[str], Vector]
"""A text's unit vector, or the zero vector of a text without tokens."""

_SMOOTHING: Final = 1e-4
_ZIPF_OFFSET: Final = 10
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
        return found is None or self._sizes[found] < self._settings.max_size

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


def embed_by_tokens(tokenizer: Any, table: NDArray[np.float32], reference: Sequence[str]) -> Embed:
    """Smooth inverse frequency (Arora et al., ICLR 2017) over a model's input embedding; `table`: (tokens, width).

    A text is the mean of its tokens' vectors, rare tokens counting more. From it are taken what all texts have in
    common: the mean and the first principal component of the texts of `reference`, of which at least two are needed.
    How frequent a token is, is guessed from its id by Zipf's law, for tokenizers number tokens as they find them.
    """
    frequency = 1.0 / (np.arange(len(table)) + _ZIPF_OFFSET)
    weights = (_SMOOTHING / (_SMOOTHING + frequency / frequency.sum())).astype(np.float32)

    def mean(text: str) -> Vector | None:
        ids = tokenizer.encode(text, add_special_tokens=False)
        if not ids:
            return None
        vector: Vector = (table[ids] * weights[ids][:, None]).sum(axis=0) / weights[ids].sum()
        return vector

    common = np.stack([vector for text in reference if (vector := mean(text)) is not None])
    centre = common.mean(axis=0)
    first = np.linalg.svd(common - centre, full_matrices=False)[2][0]

    def embed(text: str) -> Vector:
        vector = mean(text)
        if vector is None:
            return np.zeros_like(centre)
        vector = vector - centre
        vector -= (vector @ first) * first
        norm = float(np.linalg.norm(vector))
        unit: Vector = vector / norm if norm > 0 else np.zeros_like(centre)
        return unit

    return embed


def reference_texts(objective: Objective) -> list[str]:
    """Ordinary sentences that have nothing in common but being sentences: what an objective itself says."""
    facets = [value for values in objective.facets.values() for value in values]
    aspects = [words for a in objective.aspects for words in (a.title, a.definition, a.low, a.middle, a.high) if words]
    criteria = list(objective.critic.criteria.values()) if objective.critic is not None else []
    return [objective.name, objective.preamble, *facets, *aspects, *criteria]


def read_token_vectors(folder: Path) -> NDArray[np.float32]:
    """The input embedding of the model in `folder`, shape (tokens, width). Raises BadInputError when there is none."""
    from safetensors import safe_open

    files = read_tensor_files(folder)
    if name := _first(files):
        with safe_open(files[name], framework="pt") as tensors:
            table: NDArray[np.float32] = tensors.get_tensor(name).float().numpy()
            return table
    raise BadInputError(
        f"no tensor in {folder} is called like an input embedding ({', '.join(_NAMES)}), which "
        "prompts.dedup.clusters needs. Remove that setting."
    )


def _first(names: Iterable[str]) -> str | None:
    return next((name for name in sorted(names) if name.endswith(_NAMES)), None)
