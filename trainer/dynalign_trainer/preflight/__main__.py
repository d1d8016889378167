"""`python -m dynalign_trainer.preflight`: the checks of fetch, for a model on this machine, before a run begins.

Reads a PreflightOrder from standard input, writes a PreflightReport to standard output and everything else to standard
error. Exit code 0 whatever was found.
"""

import os
import sys
from pathlib import Path

from dynalign_contract.preflight import PreflightOrder


def main() -> None:
    """Answer one order."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print what they like
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    order = PreflightOrder.model_validate_json(sys.stdin.buffer.read())
    from dynalign_trainer.preflight.checks import inspect_folder

    report = inspect_folder(Path(order.model), order.preflight, order.engine, order.chat, order.quantized).report()
    answers.write(f"{report.to_json()}\n")
    answers.flush()


if __name__ == "__main__":
    main()
