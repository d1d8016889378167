"""Where a stage's pod has what it works with: mounts, ports and environment variables. The only home of these names.

The operator builds pods from them, `dynalign run` maps them to folders of one machine, and the stages look there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

RUN_MOUNT: Final = "/volume"
"""The run's volume; a run works in the folder of its own name below it."""
CONFIG_MOUNT: Final = "/etc/dynalign"
"""The ConfigMap with the stage's configuration."""
CACHE_MOUNT: Final = "/cache"
"""What lives as long as the pod: models and compiled kernels."""
CLAIMS_MOUNT: Final = "/pvc"
"""Claims that a run only reads from, one folder each, named like the claim."""
TRUST_MOUNT: Final = "/etc/dynalign-trust"
"""The site's certificate authorities, where the installation names some."""
TMP_MOUNT: Final = "/tmp"  # noqa: S108 - a mount in the pod
SHARED_MEMORY_MOUNT: Final = "/dev/shm"  # noqa: S108 - a mount in the pod
TERMINATION_LOG: Final = "/dev/termination-log"
"""Where a stage leaves its result."""

METRICS_PORT: Final = 9464
"""Port of a stage's `/metrics` and `/healthz`."""
RENDEZVOUS_PORT: Final = 29400
"""Port at which rank 0 of a training gang waits for the others."""


class Variable:
    """Environment variables with which pods, stages and `dynalign run` tell each other where things are."""

    METRICS_PORT: Final = "DYNALIGN_METRICS_PORT"
    CLAIMS_ROOT: Final = "DYNALIGN_PVC_ROOT"
    """Folder that holds the claims instead of `CLAIMS_MOUNT`."""
    CACHE: Final = "DYNALIGN_CACHE"
    """Folder for what is made once per machine. Default: `~/.cache/dynalign`."""
    WORKDIR: Final = "DYNALIGN_WORKDIR"
    """Marks the processes of a run that `dynalign run` has started."""
    ASKED_AT: Final = "DYNALIGN_ASKED_AT"
    """Unix time at which `dynalign run` asked its preload server for the stage, which may have waited for it."""
    COMPLETION_INDEX: Final = "JOB_COMPLETION_INDEX"
    """Index of a shard, or rank in a gang; Kubernetes sets it."""
    HUB_HOME: Final = "HF_HOME"
    HUB_TOKEN: Final = "HF_TOKEN"  # noqa: S105 - the name of a variable
    HUB_OFFLINE: Final = "HF_HUB_OFFLINE"
    HUB_ENDPOINT: Final = "HF_ENDPOINT"
    """Address of a mirror of the model hub."""
    COMPILED_ARCHIVES: Final = "DYNALIGN_COMPILED"
    """Folder on the run's volume with archives of what stages have compiled; unset where nothing is passed on."""
    GRACE_SECONDS: Final = "DYNALIGN_GRACE_SECONDS"
    """Seconds between SIGTERM and SIGKILL."""
    IMAGE: Final = "DYNALIGN_IMAGE"
    """The pod's image, for what must not outlive it."""
    COMPILED_BY_VLLM: Final = "VLLM_CACHE_ROOT"
    COMPILED_BY_INDUCTOR: Final = "TORCHINDUCTOR_CACHE_DIR"
    COMPILED_BY_TRITON: Final = "TRITON_CACHE_DIR"
    TORCH_EXTENSIONS: Final = "TORCH_EXTENSIONS_DIR"


POD_ONLY: Final = frozenset(
    {Variable.COMPILED_ARCHIVES, Variable.IMAGE, "HOME", "LOGNAME", "USER", "NVIDIA_VISIBLE_DEVICES"}
)
"""What describes a pod, and would be wrong of a process of this machine."""


def claims_folder(environment: Mapping[str, str]) -> Path:
    """Folder that holds one folder for every mounted claim: `DYNALIGN_PVC_ROOT`, or `/pvc`."""
    return Path(environment.get(Variable.CLAIMS_ROOT) or CLAIMS_MOUNT)
