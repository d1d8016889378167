"""Whether a process that has counted its GPUs as the stages do can still start workers that use them."""

import os
import subprocess
import sys
from typing import Final

from benchmarks.gpu_checks.finding import Finding, Place, SkippedError

_PLAIN: Final = "import torch; torch.cuda.is_available()"
_OURS: Final = "from dynalign_trainer.runtime.machine import count_gpus; assert count_gpus() > 0; import torch"
_FORK: Final = """
import os
pid = os.fork()
if pid == 0:
    try:
        torch.zeros(1, device="cuda")
    except RuntimeError:
        os._exit(1)
    os._exit(0)
print("good" if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 else "bad")
"""
_SPAWN: Final = """
import subprocess, sys
worker = subprocess.run([sys.executable, "-c", "import torch; torch.zeros(1, device='cuda')"])
print("good" if worker.returncode == 0 else "bad")
"""


def check(place: Place) -> Finding:
    """Try a fork after PyTorch's own question, one after ours, and a worker that is spawned, as engines' are."""
    if not place.is_cuda:
        raise SkippedError("it is about the CUDA driver's state after a fork, which a CPU does not have")
    values = {
        "fork_after_is_available": _try(_PLAIN + _FORK, plain=True),
        "fork_after_count_gpus": _try(_OURS + _FORK),
        "spawn_after_count_gpus": _try(_OURS + _SPAWN),
    }
    wanted = ("fork_after_count_gpus", "spawn_after_count_gpus")
    return Finding(values, tuple(f"{name} is {values[name]}" for name in wanted if values[name] != "good"))


def _try(program: str, *, plain: bool = False) -> str:
    environment = dict(os.environ)
    if plain:
        environment.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=40, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]
