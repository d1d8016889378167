"""The bundled SmolLM2 on a real cluster: one iteration, from the package's model to an exported one."""

from pathlib import Path

import pytest

from dynalign_contract.stages import Stage
from support.cluster_runs import ClusterRun, Site, violations

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(3000)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "kubernetes-cpu.yaml"

READ = """
import json, pathlib
config = json.loads(pathlib.Path("/volume/ca-smollm2/export/config.json").read_text())
print(config["model_type"], sum(p.stat().st_size for p in pathlib.Path("/volume/ca-smollm2/export").glob("*.safetensors")))
"""


def test_one_iteration_of_smollm2(site: Site) -> None:
    site.kubectl("apply", "-f", str(EXAMPLE))
    run = ClusterRun(site, "ca-smollm2")
    run.until_completed()
    status = run.status
    assert {job["metadata"]["labels"]["dynalign.io/attempt"] for job in run.jobs()} == {"1"}
    assert 0 <= status["iterations"][0]["reward"] <= 1
    assert 0 <= status["iterations"][0]["winRate"]["value"] <= 1
    run.until_reported()
    assert run.stages() == set(Stage)
    assert violations(run.all_pods()) == []
    kind, size = site.run_pod("read", READ, run.name).split()
    assert kind == "llama"
    assert int(size) > 200_000_000
