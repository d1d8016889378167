"""Sampling by several engines: groups of prompts are dealt out, and put together again when they have ended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dynalign_contract.phases import Phase
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.dealing import deal, filled
from dynalign_trainer.models.replica_messages import Add, DrawnPiece, Progress
from dynalign_trainer.models.replicas import Replicas, Result
from dynalign_trainer.models.sampler import Drawn, Sample
from dynalign_trainer.runtime.telemetry import Telemetry


@dataclass
class _Group:
    """A group whose completions are being drawn."""

    engines: list[int]
    """Engines that have a piece of it, in the order of the prompts."""
    drawn: dict[int, list[list[Sample]]] = field(default_factory=dict)
    """Engine -> its piece, once it has ended."""


class ReplicatedSampler:
    """A `Sampler` that several engines work for."""

    def __init__(self, replicas: Replicas, number: int, telemetry: Telemetry) -> None:
        """`number` is that of the order by which the engines have opened their samplers."""
        self._replicas, self._number, self._telemetry = replicas, number, telemetry
        self._given = [0] * len(replicas)
        """Completions that each engine was asked for."""
        self._progress = [Progress(number, 0, 0.0)] * len(replicas)
        self._open: dict[int, _Group] = {}
        self._groups = 0

    @property
    def underway(self) -> int:
        """Completions that have not ended."""
        return sum(self._loads())

    @property
    def ended(self) -> int:
        """Completions that have ended."""
        return sum(progress.ended for progress in self._progress)

    @property
    def rate(self) -> float:
        """Tokens per second, read and written."""
        return sum(progress.rate for progress, load in zip(self._progress, self._loads(), strict=True) if load)

    @property
    def has_room(self) -> bool:
        """Whether another group would begin at once: on a CPU, in an engine that has nothing else to do."""
        slots = self._replicas.slots
        return min(self._loads()) == 0 if slots is None else self.underway < slots

    def add(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> int:
        """Draw completions of these prompts, as `Sampler.add` says: on a GPU by all engines, most by the idlest."""
        if self._replicas.slots is None:
            return self._add_whole(prompts, sampling, seeds, is_alone=False)
        costs = [sampling.n] * len(prompts)
        pieces = deal(costs, [0] * len(prompts), self._loads())
        return self._add(pieces, prompts, sampling, seeds, is_alone=False)

    def add_alone(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> int:
        """Draw them by one engine and from an empty prefix cache, as `Sampler.add_alone` says."""
        return self._add_whole(prompts, sampling, seeds, is_alone=True)

    def advance(self, watch: Callable[[], None], *, for_room: bool = False) -> list[Drawn]:
        """Wait for the engines' steps, as `Sampler.advance` says; `watch` is called twice a second or more often."""
        drawn: list[Drawn] = []
        with self._telemetry.useful.span():
            while self._open and not drawn and not (for_room and self.has_room):
                for index, reply in self._replicas.replies(self._number):
                    self._telemetry.phases.once(Phase.FIRST_STEP)
                    drawn += self._take(index, reply)
                watch()
        return drawn

    def _loads(self) -> list[int]:
        return [given - progress.ended for given, progress in zip(self._given, self._progress, strict=True)]

    def _add_whole(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int], *, is_alone: bool
    ) -> int:
        """To the engine with the least work: last bits on a CPU depend on what is computed together."""
        loads = self._loads()
        idlest = loads.index(min(loads))
        pieces = [slice(0, len(prompts) if index == idlest else 0) for index in range(len(loads))]
        return self._add(pieces, prompts, sampling, seeds, is_alone=is_alone)

    def _add(
        self,
        pieces: Sequence[slice],
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        is_alone: bool,
    ) -> int:
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts")
        group = self._groups
        self._groups += 1
        self._open[group] = _Group([index for index, _ in filled(pieces)])
        for index, piece in filled(pieces):
            self._given[index] += (piece.stop - piece.start) * sampling.n
            order = Add(self._number, group, prompts[piece], sampling, seeds[piece], is_alone)
            self._replicas.send(index, order)
        return group

    def _take(self, index: int, reply: Result) -> list[Drawn]:
        """Count a reply; the group that has ended with it, if one has."""
        if isinstance(reply, Progress):
            self._progress[index] = reply
        if not isinstance(reply, DrawnPiece):
            return []
        group = self._open[reply.group]
        group.drawn[index] = reply.samples
        if len(group.drawn) < len(group.engines):
            return []
        del self._open[reply.group]
        return [Drawn(reply.group, [samples for engine in group.engines for samples in group.drawn[engine]])]
