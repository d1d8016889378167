"""What the author's tasks are seeded with. Pure."""

import random
from collections.abc import Mapping, Sequence

from dynalign_contract.errors import BadConfigError

Seed = dict[str, str]
"""Facet -> the value drawn for one draft."""


def merge_facets(own: Mapping[str, Sequence[str]], replaced: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The objective's facets with the values that the run file puts in their place.

    Raises BadConfigError when the run file names a facet that the objective has not, or gives it no values.
    """
    for name, values in replaced.items():
        if name not in own:
            raise BadConfigError(
                f"prompts.seeds.facets.{name}: the objective has no such facet; it has "
                f"{', '.join(sorted(own)) or 'none'}."
            )
        if not values:
            raise BadConfigError(f"prompts.seeds.facets.{name} is empty; give at least one value or remove it.")
    return {name: tuple(replaced.get(name, values)) for name, values in own.items()}


def sample_seeds(facets: Mapping[str, Sequence[str]], count: int, rng: random.Random) -> list[Seed]:
    """Draw `count` seeds in which every value of a facet occurs equally often, give or take one.

    Each facet deals its values round-robin from a deck of its own, shuffled anew each time it is used up, so that the
    combinations vary.
    """
    decks = {name: _deal(values, count, rng) for name, values in facets.items()}
    return [{name: deck[i] for name, deck in decks.items()} for i in range(count)]


def facet_coverage(facets: Mapping[str, Sequence[str]], seeds: Sequence[Mapping[str, str]]) -> float | None:
    """Share of a facet's values that occur among the seeds, mean over the facets, 0 to 1; None without facets."""
    if not facets:
        return None
    shares = [len({seed[name] for seed in seeds} & set(values)) / len(set(values)) for name, values in facets.items()]
    return sum(shares) / len(shares)


def _deal(values: Sequence[str], count: int, rng: random.Random) -> list[str]:
    dealt: list[str] = []
    while len(dealt) < count:
        dealt += rng.sample(list(values), len(values))
    return dealt[:count]
