"""The share of an accelerator's peak that the stages reach, each figure with its source."""

from dataclasses import dataclass, replace
from typing import Final

from dynalign_contract.accelerators import Hardware


@dataclass(frozen=True)
class Factor:
    """A figure that the arithmetic rests on and that no specification gives."""

    value: float
    what: str
    source: str


@dataclass(frozen=True)
class Efficiency:
    """What the stages reach, and what their starts take, on a kind of hardware."""

    prefill: Factor
    decode: Factor
    step: Factor
    sequences: Factor
    training: Factor
    start: Factor
    engine_start: Factor
    reader_start: Factor
    training_start: Factor
    batch: Factor
    digest: Factor
    volume: Factor
    exchange: Factor

    @property
    def factors(self) -> tuple[tuple[str, Factor], ...]:
        """Every factor by its name."""
        return tuple(vars(self).items())


_READ: Final = "read in vLLM 0.31, not measured"
_SHARED: Final = {
    "digest": Factor(
        1.4e9, "bytes a second of which a core checks digests; a pod has two for each GPU", "measured, one core"
    ),
    "batch": Factor(
        4e6,
        "tokens a second of which a training process reads the batch",
        "measured, one core, 4,096 rows of 1,224 tokens",
    ),
    "volume": Factor(2e9, "bytes a second of the run's volume, over all pods", "assumed: NFS on a fast network"),
    "exchange": Factor(
        0.7,
        "seconds until pods have seen a batch of drafts or questions, and its answers",
        "measured, eight processes on 2 cores, 0.4 to 1.2 s",
    ),
}

GPU_EFFICIENCY: Final = Efficiency(
    prefill=Factor(0.45, "share of peak operations while prompts are read", "assumed, as in published vLLM rates"),
    decode=Factor(0.5, "share of peak bandwidth while tokens are sampled", "published rates lie at 40 to 60 percent"),
    step=Factor(4e-3, "seconds of a sampling step beside the GPU's work", _READ),
    sequences=Factor(1024, "sequences that an engine samples at a time, at most", _READ),
    training=Factor(0.21, "share of peak operations in training (MFU)", "prime-rl, Qwen3-4B LoRA, 8 x H100"),
    start=Factor(22, "seconds to start a stage: interpreter, imports", "measured on CPUs"),
    engine_start=Factor(45, "seconds to compile, capture graphs and size the cache, caches warm", _READ),
    reader_start=Factor(
        25, "seconds of the same where an engine only reads, which compiles and captures nothing", _READ
    ),
    training_start=Factor(20, "seconds to start torchrun, NCCL and DeepSpeed", "assumed"),
    **_SHARED,
)

CPU_EFFICIENCY: Final = Efficiency(
    prefill=Factor(
        0.8, "share of the operations above while prompts are read", "fitted to the whole of an earlier demo, 361 s"
    ),
    decode=Factor(
        0.2,
        "share of the operations above while tokens are sampled",
        "fitted to the whole of an earlier demo, 361 s",
    ),
    step=Factor(0.0, "seconds of a sampling step beside the arithmetic", "part of the factor before"),
    sequences=Factor(256, "sequences that an engine samples at a time, at most", _READ),
    training=Factor(0.43, "share of the operations above in training", "fitted to the whole of an earlier demo, 361 s"),
    start=Factor(4, "seconds to start a stage; imports are shared", "start_seconds of docs/results, shared out"),
    engine_start=Factor(4, "seconds to start an engine", "start_seconds of docs/results, shared out"),
    reader_start=Factor(4, "the same, for no engine compiles here", "start_seconds of docs/results, shared out"),
    training_start=Factor(
        12, "seconds to start torchrun, gloo and DeepSpeed", "start_seconds of docs/results, shared out"
    ),
    **_SHARED,
)


def efficiency_of(hardware: Hardware, volume_bandwidth: float | None = None) -> Efficiency:
    """The factors that hold for a kind of hardware, with the user's own figure for the volume, in bytes a second."""
    found = CPU_EFFICIENCY if hardware is Hardware.CPU else GPU_EFFICIENCY
    if volume_bandwidth is None:
        return found
    return replace(found, volume=replace(found.volume, value=volume_bandwidth, source="your figure"))
