"""The bundled SmolLM2 on a real cluster, on CPUs or GPUs: one iteration, from the package's model to an exported one."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from dynalign_contract.stages import ROLLOUT_STAGES, Stage
from lab.cluster_reads import Object
from support.cluster_runs import GPU, HAS_GPUS, ClusterRun, Site, violations

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(3000)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "kubernetes-cpu.yaml"

READ = """
import json, pathlib
config = json.loads(pathlib.Path("/volume/ca-smollm2/export/config.json").read_text())
print(config["model_type"], sum(p.stat().st_size for p in pathlib.Path("/volume/ca-smollm2/export").glob("*.safetensors")))
"""


def gpus_of(job: Object) -> int:
    """GPUs that a pod of the Job gets."""
    containers = job["spec"]["template"]["spec"]["containers"]
    return sum(int(container.get("resources", {}).get("limits", {}).get(GPU, 0)) for container in containers)


def test_one_iteration_of_smollm2(site: Site) -> None:
    example: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    if HAS_GPUS:
        del example["spec"]["stages"]  # which says that no stage gets a GPU
    site.kubectl("apply", "-f-", manifest=example)
    run = ClusterRun(site, "ca-smollm2")
    run.until_completed()
    status = run.status
    assert {job["metadata"]["labels"]["dynalign.io/attempt"] for job in run.jobs()} == {"1"}
    assert max(gpus_of(job) for job in run.jobs()) == (1 if HAS_GPUS else 0)
    assert 0 <= status["iterations"][0]["reward"] <= 1
    assert 0 <= status["iterations"][0]["winRate"]["value"] <= 1
    run.until_reported()
    assert run.stages() == set(Stage) - set(ROLLOUT_STAGES), "a rollout did their work"
    assert violations(run.all_pods()) == []
    kind, size = site.run_pod("read", READ, run.name).split()
    assert kind == "llama"
    assert int(size) > 200_000_000
