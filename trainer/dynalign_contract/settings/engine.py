"""How the inference engine holds the model, and in which numbers sampler and trainer compute."""

from enum import StrEnum

from pydantic import Field

from dynalign_contract.base import Model


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
