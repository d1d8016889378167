"""The runs' series as text, kept run by run: of thousands of runs only those that have changed are computed anew."""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.core import Metric

from dynalign_operator.clusters.base import RunKey
from dynalign_operator.metrics.runs import KnownRun, run_families

_NOTHING: Final = run_families(())


class RunTexts:
    """Lines of every run, family by family, and of which version of the run they tell."""

    def __init__(self) -> None:
        self._lines: dict[RunKey, tuple[object, tuple[bytes, ...]]] = {}
        self._headers = tuple(_text_of(family) for family in _NOTHING)

    def is_current(self, key: RunKey, stamp: object) -> bool:
        """Whether the lines that are kept tell of this version."""
        kept = self._lines.get(key)
        return kept is not None and kept[0] == stamp

    def note(self, key: RunKey, stamp: object, run: KnownRun | None) -> None:
        """Compute a run's lines anew; None for a run that has no series."""
        families = _NOTHING if run is None else run_families([run])
        pairs = zip(families, self._headers, strict=True)
        self._lines[key] = (stamp, tuple(_text_of(family)[len(header) :] for family, header in pairs))

    def keep(self, keys: Iterable[RunKey]) -> None:
        """Forget all other runs."""
        for key in self._lines.keys() - set(keys):
            del self._lines[key]

    def text(self) -> bytes:
        """All series in the exposition format."""
        return b"".join(self._parts())

    def _parts(self) -> Iterator[bytes]:
        for index, header in enumerate(self._headers):
            yield header
            yield from (lines[index] for _, lines in self._lines.values())


class _One:
    """A registry of one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def _text_of(family: Metric) -> bytes:
    return generate_latest(_One(family))
