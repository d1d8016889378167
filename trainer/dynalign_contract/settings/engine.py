"""How the inference engine holds the model, and in which numbers sampler and trainer compute."""

from enum import StrEnum
from typing import Final

from pydantic import Field

from dynalign_contract.base import Model

NUMBER_OF_ENGINES: Final = frozenset({"replicas"})
"""Fields that no digest of what engines make depends on: what they make does not depend on how many they are."""


class DType(StrEnum):
    """Number format of weights and activations."""

    AUTO = "Auto"
    """BFloat16 on a GPU, Float32 on a CPU; sampler and trainer alike."""
    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"


class EngineSettings(Model):
    """How the inference engine (vLLM) holds the model; the trainer takes `dtype` from here too."""

    dtype: DType = DType.AUTO
    max_length: int | None = Field(default=None, ge=64, le=1_048_576)
    """Context window in tokens, prompt and completion together. Default: the model's own, at most 4096."""
    memory_gib: int = Field(default=1, ge=1, le=1024)
    """Memory for the key-value cache on a CPU, GiB. A GPU gives 90 percent of its own."""
    tensor_parallel: int = Field(default=1, ge=1, le=64)
    """GPUs over which one copy of the model is split."""
    replicas: int = Field(default=1, ge=1, le=16)
    """Engines in each pod that samples or judges, which its stage feeds together: every one has a copy of the model and
    `tensorParallel` GPUs, or its share of the cores. A stage uses `generation.shards` x `replicas` x `tensorParallel`
    GPUs. It writes what it would write with a single engine, on GPUs but for last digits."""

    @property
    def gpus(self) -> int:
        """GPUs of a pod's engines together."""
        return self.replicas * self.tensor_parallel
