"""Answers that give orders to the judge: the collection that ships, and the choice of some of them. Pure but for it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain, zip_longest

import yaml


@dataclass(frozen=True)
class Injection:
    """One attack."""

    attack: str
    """Id of the attack."""
    kind: str
    """Method of the attack: `order`, `rubric`, `delimiter`, ..."""
    text: str


@cache
def all_injections() -> tuple[Injection, ...]:
    """The collection of `injections.yaml`, in its order."""
    text = (resources.files("dynalign_trainer.judge") / "injections.yaml").read_text(encoding="utf-8")
    kinds: dict[str, dict[str, object]] = yaml.safe_load(text)
    return tuple(
        Injection(attack, kind, str(words)) for kind, attacks in kinds.items() for attack, words in attacks.items()
    )


def choose_injections(injections: Sequence[Injection], count: int, draw: random.Random) -> list[Injection]:
    """Up to `count` different attacks: from every kind equally many, give or take one, while it has any left."""
    kinds: dict[str, list[Injection]] = {}
    for injection in injections:
        kinds.setdefault(injection.kind, []).append(injection)
    shuffled = [draw.sample(members, len(members)) for members in draw.sample(list(kinds.values()), len(kinds))]
    rounds = chain.from_iterable(zip_longest(*shuffled))
    return [injection for injection in rounds if injection is not None][:count]
