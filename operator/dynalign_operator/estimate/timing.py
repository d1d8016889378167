"""Seconds of a stage: its start, the reading of prompts, the sampling of answers, and training."""

from dataclasses import dataclass
from typing import Final

from dynalign_contract.accelerators import GIB, Accelerator
from dynalign_contract.model_shape import ModelShape
from dynalign_contract.stages import Stage
from dynalign_operator.estimate.hardware import Efficiency
from dynalign_operator.estimate.placement import Placement
from dynalign_operator.estimate.workload import Work
from dynalign_operator.manifests.overrides import CORES_PER_GPU

_LOAD: Final = 4e9
"""Bytes a second from the page cache to an accelerator."""
USABLE: Final = 0.9
"""Share of an accelerator's memory that the engine takes."""
_BUILDING: Final = 3
"""Time in which a batch is read, joined and written, in units of that in which it is read."""
_NODE: Final = 8
"""Accelerators of a node, whose pods share what it has read."""


@dataclass(frozen=True)
class Machine:
    """What a stage runs on."""

    accelerator: Accelerator
    efficiency: Efficiency
    shape: ModelShape
    placement: Placement
    policies: int = 0
    """Policies of full training that the stage checks beside the base model. It loads one of them in its place."""

    @property
    def flops(self) -> float:
        """Peak operations a second of all pods; of a stage that may use no accelerator, those of one."""
        return max(1, self.placement.total) * self.accelerator.flops

    @property
    def weight_bytes(self) -> float:
        """Bytes of the model's weights, as engine and trainer hold them."""
        return float(self.shape.parameters * self.accelerator.value_bytes)

    @property
    def stored_bytes(self) -> float:
        """Bytes of all weights that the stage checks."""
        return self.weight_bytes + self.policies * self._policy_bytes

    @property
    def loaded_bytes(self) -> float:
        """Bytes of the files whose weights the stage begins with."""
        return self._policy_bytes if self.policies else self.weight_bytes

    @property
    def _policy_bytes(self) -> float:
        """A policy of full training is stored in Float32."""
        return 4.0 * self.shape.parameters


@dataclass(frozen=True)
class StageSeconds:
    """Where the time of a stage goes, in seconds."""

    start: float
    """Until the first token: interpreter, imports, digests, weights, compilation."""
    read: float = 0.0
    sample: float = 0.0
    train: float = 0.0
    write: float = 0.0
    exchange: float = 0.0
    """Until what pods ask each other, and answer, is seen."""

    @property
    def total(self) -> float:
        """Seconds from the pod's start to its end."""
        return self.start + self.read + self.sample + self.train + self.write + self.exchange


def time_of(work: Work, machine: Machine) -> StageSeconds:
    """Seconds of a stage of an iteration."""
    if work.stage is Stage.TRAIN:
        return StageSeconds(start=_training_start(work, machine), train=_train(work, machine))
    if not work.read and not work.written:
        return StageSeconds(start=machine.efficiency.start.value)
    return StageSeconds(
        start=_engine_start(work, machine),
        read=_read(work, machine),
        sample=_sample(work, machine),
        exchange=work.batches * machine.efficiency.exchange.value if machine.placement.pods > 1 else 0.0,
    )


def copy_time(machine: Machine, *, merged: bool) -> StageSeconds:
    """Seconds of fetch, which copies the weights and checks them, or of export, which merges them besides."""
    efficiency, size = machine.efficiency, machine.weight_bytes
    seconds = size / efficiency.volume.value * (2 if merged else 1) + size / efficiency.digest.value
    return StageSeconds(start=efficiency.start.value, write=seconds)


def sequences_at_a_time(work: Work, machine: Machine) -> float:
    """Sequences that one engine samples together: as many as its memory, its limit and, on a CPU, a part allow."""
    of_engine = work.sequences / machine.placement.total_engines
    of_part = work.barrier or of_engine if machine.accelerator.is_cpu else of_engine
    sequences = min(of_engine, machine.efficiency.sequences.value, of_part)
    memory = USABLE * machine.accelerator.memory_gib * GIB * machine.placement.parallel
    cache = work.context * machine.shape.kv_values * machine.accelerator.value_bytes
    return max(1.0, min(sequences, (memory - machine.weight_bytes) / max(cache, 1.0)))


def read_bytes(machine: Machine) -> float:
    """Bytes of weights that a stage reads from the run's volume: once a node, whose pods share what it has read.

    Pods are taken to fill nodes of eight accelerators; pods that lie on more nodes read more.
    """
    return -(-max(1, machine.placement.total) // _NODE) * machine.stored_bytes


def _verified(machine: Machine) -> float:
    """Every pod checks the digests of all weights with the cores that it asks for; the volume gives them to all nodes
    at once."""
    efficiency = machine.efficiency
    digest = efficiency.digest.value * max(1, CORES_PER_GPU * machine.placement.accelerators)
    return max(machine.stored_bytes / digest, read_bytes(machine) / efficiency.volume.value)


def _engine_start(work: Work, machine: Machine) -> float:
    """Digests are checked while the engine's libraries are imported."""
    efficiency = machine.efficiency
    loaded = machine.loaded_bytes / (_LOAD * machine.placement.parallel)
    engine = efficiency.reader_start if work.only_reads else efficiency.engine_start
    return max(efficiency.start.value, _verified(machine)) + loaded + engine.value


def _training_start(work: Work, machine: Machine) -> float:
    """The processes import, meet and load the model while the batch is built and digests are checked; then each of them
    reads the batch."""
    efficiency = machine.efficiency
    loads = machine.loaded_bytes / _LOAD + efficiency.training_start.value
    handed = work.stored / efficiency.batch.value
    return efficiency.start.value + max(_verified(machine), loads, _BUILDING * handed) + handed


def _read(work: Work, machine: Machine) -> float:
    speed = machine.flops * machine.efficiency.prefill.value
    return 2 * machine.shape.active * work.read / speed


def _sample(work: Work, machine: Machine) -> float:
    """A step writes one token of every sequence: it moves the weights once and every sequence's cache, or is bound by
    its operations where there are many. A wave ends with its longest answer; meanwhile fewer and fewer are sampled. On
    a GPU a sequence that ends makes room for another one, so that only the last wave ends so."""
    if not work.written:
        return 0.0
    together, of_engine = sequences_at_a_time(work, machine), work.sequences / machine.placement.total_engines
    mean = work.written / work.sequences
    longest = min(work.longest, 2 * mean)
    wave = longest * _step(work, machine, together * mean / longest)
    if machine.accelerator.is_cpu:
        return max(1.0, of_engine / together) * wave
    return max(0.0, of_engine / together - 1) * mean * _step(work, machine, together) + wave


def _step(work: Work, machine: Machine, busy: float) -> float:
    """Seconds of a step that writes a token of so many sequences."""
    parallel = machine.placement.parallel
    value = machine.accelerator.value_bytes
    moved = _touched(machine.shape, busy) * value + busy * work.context * machine.shape.kv_values * value
    decode = machine.efficiency.decode.value
    by_bandwidth = moved / (machine.accelerator.bandwidth * parallel * decode)
    by_operations = 2 * machine.shape.active * busy / (machine.accelerator.flops * parallel * decode)
    return max(by_bandwidth, by_operations) + machine.efficiency.step.value


def _touched(shape: ModelShape, sequences: float) -> float:
    """Weights that a step moves: of a mixture of experts, those that any of the sequences is sent to."""
    dense = shape.parameters - shape.experts
    missed: float = (1 - shape.expert_share) ** sequences
    return dense + shape.experts * (1 - missed)


def _train(work: Work, machine: Machine) -> float:
    speed = machine.flops * machine.efficiency.training.value
    return work.passes * machine.shape.active * work.trained / speed
