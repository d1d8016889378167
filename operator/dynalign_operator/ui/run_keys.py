"""Keys by which the page names runs. Pure."""

from dataclasses import dataclass
from typing import Self

from dynalign_operator.clusters.run_source import ListedRun

_CLUSTER = "cluster"
_LOCAL = "local"


@dataclass(frozen=True)
class RunKey:
    """A run of a namespace, or a working folder."""

    namespace: str | None
    """None for a working folder."""
    name: str
    """Name in the namespace, or the folder."""

    def __str__(self) -> str:
        return f"{_LOCAL}:{self.name}" if self.namespace is None else f"{_CLUSTER}:{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The key that `str` writes so; None for anything else. Whether there is such a run is another question."""
        kind, _, rest = text.partition(":")
        if kind == _LOCAL and rest:
            return cls(None, rest)
        namespace, slash, name = rest.partition("/")
        return cls(namespace, name) if kind == _CLUSTER and slash and namespace and name else None


def key_of(run: ListedRun) -> RunKey:
    """The key of a listed run; those of this machine are known by their folder."""
    return RunKey(run.group, run.name) if run.is_cluster else RunKey(None, run.folder)
