"""The report stage as a process of its own, for it changes its own priority."""

import os
import subprocess
from pathlib import Path

from dynalign_contract.result import StageResult
from dynalign_operator.clusters.local.commands import Placement, build_command
from dynalign_operator.clusters.local.workdir import Workdir
from dynalign_operator.planning.plan import JobBundle

PATIENCE = 240


def run_stage(bundle: JobBundle, root: Path) -> StageResult:
    """Run the Job's container on this machine, as LocalCluster would."""
    workdir = Workdir(root)
    folder = workdir.job(bundle.name)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in bundle.config_map["data"].items():
        (folder / name).write_text(text)
    command = build_command(bundle.job, 0, 0, Placement(workdir, root / "cache", dict(os.environ)))
    done = subprocess.run(
        command.arguments, check=False, env=dict(command.environment), timeout=PATIENCE, capture_output=True, text=True
    )
    result = StageResult.decode(workdir.result(bundle.name, 0).read_bytes())
    assert done.returncode == result.exit_code, done.stderr
    return result
