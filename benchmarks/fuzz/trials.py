"""What a fuzzer is, and how its inputs are tried: one seed an input, so that each failure can be had again alone."""

import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

Trial = Callable[[random.Random], str]
"""Makes one input from the generator and tries it. Returns what became of it in a word or two, the same words for the
same outcome. Raises AssertionError for a broken promise; any other exception is a failure too."""


@dataclass(frozen=True)
class Fuzzer:
    """A kind of input."""

    name: str
    """As the option of the command has it: `documents`."""
    open: Callable[[], AbstractContextManager[Trial]]
    """Prepares what all trials share, such as a temporary folder."""


@dataclass(frozen=True)
class Failure:
    """An input that broke a promise."""

    fuzzer: str
    seed: int
    text: str

    @property
    def command(self) -> str:
        """Shell command that tries this very input again."""
        return f"python -m benchmarks.fuzz --{self.fuzzer} 1 --seed {self.seed}"


@dataclass
class Outcomes:
    """What became of one fuzzer's inputs."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)


def try_inputs(fuzzer: Fuzzer, count: int, seed: int) -> Outcomes:
    """Try `count` inputs, of the seeds from `seed` upwards."""
    outcomes = Outcomes()
    with fuzzer.open() as trial:
        for number in range(seed, seed + count):
            try:
                outcomes.counts[trial(random.Random(number))] += 1  # noqa: S311 - chosen inputs, no secrets
            except Exception as error:  # noqa: BLE001 - whatever is raised is what is looked for
                outcomes.counts["FAILED"] += 1
                outcomes.failures.append(Failure(fuzzer.name, number, describe_failure(error)))
    return outcomes


def describe_failure(error: Exception) -> str:
    """The exception, and the last places that it came through."""
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    return "\n".join([f"{type(error).__name__}: {error}"[:2000], *(f"    {place}" for place in places[-4:])])


def kinds_of(failures: list[Failure]) -> Iterator[tuple[int, Failure]]:
    """One failure of each kind, the most frequent kind first: failures of a kind end at the same place."""
    groups: dict[str, list[Failure]] = {}
    for failure in failures:
        head, *places = failure.text.split("\n")
        groups.setdefault(head.partition(":")[0] + "".join(places[-1:]), []).append(failure)
    for group in sorted(groups.values(), key=len, reverse=True):
        yield len(group), group[0]
