"""Variables of a stage's environment that a user may set: their form, and the names that are not theirs to set."""

import re
from typing import Annotated, Final

from pydantic import Field

from dynalign_contract.base import Model
from dynalign_contract.pod_paths import Variable
from dynalign_contract.references import SecretKeyRef

OWN_NAMES: Final = frozenset(
    {
        *("HOME", "LOGNAME", "USER", "PATH", "TMPDIR"),
        *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
        *("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
        Variable.COMPLETION_INDEX,
        Variable.HUB_HOME,
        Variable.HUB_OFFLINE,
        Variable.HUB_TOKEN,
        Variable.COMPILED_BY_INDUCTOR,
        Variable.COMPILED_BY_TRITON,
        Variable.COMPILED_BY_VLLM,
        Variable.TORCH_EXTENSIONS,
    }
)
"""What dynalign, Kubernetes or torchrun sets by itself."""
OWN_PREFIXES: Final = ("DYNALIGN_",)

LOADER_NAMES: Final = frozenset(
    {
        *("BASH_ENV", "ENV", "GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH"),
        *("CUDA_INJECTION64_PATH", "NVTX_INJECTION64_PATH", "TRITON_LIBCUDA_PATH", "OPENSSL_CONF"),
        *("TRITON_PTXAS_PATH", "TRITON_PTXAS_BLACKWELL_PATH", "TRITON_CUOBJDUMP_PATH", "TRITON_NVDISASM_PATH"),
        *("TRITON_PLUGIN_PATHS", "CUDA_HOME", "CUDA_PATH", "ROCM_HOME", "ROCM_PATH"),
        *("NCCL_NET_PLUGIN", "NCCL_TUNER_PLUGIN", "NCCL_PROFILER_PLUGIN", "NCCL_ENV_PLUGIN"),
        *("HF_DATASETS_TRUST_REMOTE_CODE", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "VLLM_ALLOW_INSECURE_SERIALIZATION"),
        *("VLLM_PLUGINS", "CC", "CXX"),
    }
)
"""What makes a program load or run other code, which could lie on a volume."""
LOADER_PREFIXES: Final = ("LD_", "PYTHON")


class EnvironmentSource(Model):
    """Where a variable's value comes from."""

    secret_key_ref: SecretKeyRef
    """A key of a Secret in the run's namespace."""


class EnvironmentVariable(Model):
    """A variable of the environment of a stage's container."""

    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
            max_length=128,
            json_schema_extra={"x-form": "letters, digits and underscores, such as NCCL_SOCKET_IFNAME"},
        ),
    ]
    """Name of the variable. Refused are those that dynalign sets itself, and those that make programs load other
    code."""
    value: str | None = Field(default=None, max_length=4096)
    """The value, as text; numbers and booleans need quotes."""
    value_from: EnvironmentSource | None = None
    """Where the value comes from, instead of `value`. `dynalign run` takes it from the variable of the same name."""


def is_own(name: str) -> bool:
    """Whether dynalign, Kubernetes or torchrun sets this variable by itself."""
    return name in OWN_NAMES or name.startswith(OWN_PREFIXES)


def is_reserved(name: str) -> bool:
    """Whether no run may set this variable."""
    return re.fullmatch(RESERVED_PATTERN, name) is not None


RESERVED_PATTERN: Final = (
    f"({'|'.join(sorted(OWN_NAMES | LOADER_NAMES))}|({'|'.join((*OWN_PREFIXES, *LOADER_PREFIXES))}).*)"
)
"""Matches the whole name of a variable that no run may set; the CRD has it too."""
