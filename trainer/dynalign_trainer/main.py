"""`dynalign-stage`: parse the StageConfig, then import the stage's code, which may be heavy."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dynalign_contract.pod_paths import Variable
from dynalign_contract.proxies import direct_to_this_machine
from dynalign_trainer.runtime.importing import leave_objects_alone
from dynalign_trainer.runtime.lifecycle import Place, run_stage
from dynalign_trainer.runtime.machine import prepare_devices


def main(argv: Sequence[str] | None = None) -> None:
    """Run one stage and exit with its code as the stage contract says."""
    parser = argparse.ArgumentParser(prog="dynalign-stage", description="Run one stage of an AlignmentRun.")
    parser.add_argument("--config", type=Path, required=True, help="StageConfig, a JSON file")
    parser.add_argument("--root", type=Path, required=True, help="the run's folder on the volume")
    parser.add_argument("--result", type=Path, required=True, help="where the StageResult goes (termination message)")
    parser.add_argument("--port", type=int, default=0, help="port of /metrics and /healthz; 0 takes a free one")
    parser.add_argument("--coordinator", default="", help="host:port at which the nodes of a training meet")
    arguments = parser.parse_args(argv)
    os.environ.update(direct_to_this_machine(os.environ))
    prepare_devices()
    place = Place(
        index=int(os.environ.get(Variable.COMPLETION_INDEX, "0")),
        port=arguments.port,
        coordinator=arguments.coordinator,
    )
    code = run_stage(arguments.config, arguments.root, arguments.result, place)
    leave_objects_alone()
    sys.exit(code)


if __name__ == "__main__":
    main()
