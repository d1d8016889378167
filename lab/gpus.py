"""Whether this machine has what tests and checks of GPUs need: `python -m lab.gpus` says what is missing."""

import sys

from dynalign_trainer.runtime.machine import count_gpus, is_cpu_build


def why_no_gpu() -> str | None:
    """A sentence for people where the stages see no GPU here; None where they see one."""
    if is_cpu_build():
        return "vLLM's build for CPUs is installed, which hides GPUs from the stages. Write EXTRA=gpu after `make`."
    if count_gpus() == 0:
        return "PyTorch sees no NVIDIA GPU. Use a machine that has one, with a driver for CUDA 13."
    return None


def main() -> int:
    """Exit code 1, with a sentence, where there is no GPU."""
    missing = why_no_gpu()
    if missing is not None:
        sys.stderr.write(
            f"The tests of GPUs need an NVIDIA GPU and the environment of `make venv EXTRA=gpu`. {missing}\n"
        )
    return 0 if missing is None else 1


if __name__ == "__main__":
    sys.exit(main())
