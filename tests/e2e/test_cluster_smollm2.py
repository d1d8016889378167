"""The bundled SmolLM2 on a real cluster: one iteration, from the package's model to an exported one."""

import pytest

from dynalign_contract.stages import Stage
from support.cluster_runs import ON_CPU, Site, violations

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(3000)]

SPEC = {
    "model": {"uri": "bundled://smollm2-135m-instruct"},
    "iterations": 1,
    "engine": {"maxLength": 1024},
    "prompts": {"perIteration": 4, "heldOut": 4},
    "generation": {"candidates": 4, "maxTokens": 48},
    "judging": {"canaries": {"prompts": 1}},
    "training": {"gpusPerNode": 1, "promptsPerStep": 2, "microBatch": 2},
    "evaluation": {"winRate": {"method": "Pointwise"}},
    "storage": {"size": "2Gi"},
    "stages": ON_CPU,
}

READ = """
import json, pathlib
config = json.loads(pathlib.Path("/volume/smollm2/export/config.json").read_text())
print(config["model_type"], sum(p.stat().st_size for p in pathlib.Path("/volume/smollm2/export").glob("*.safetensors")))
"""


def test_one_iteration_of_smollm2(site: Site) -> None:
    run = site.apply("smollm2", SPEC)
    run.until_completed()
    status = run.status
    assert {job["metadata"]["labels"]["dynalign.io/attempt"] for job in run.jobs()} == {"1"}
    assert 0 <= status["iterations"][0]["reward"] <= 1
    assert 0 <= status["iterations"][0]["winRate"] <= 1
    assert {pod["metadata"]["labels"]["dynalign.io/stage"] for pod in run.pods()} == set(Stage)
    assert violations(run.pods()) == []
    kind, size = site.run_pod("read", READ, "smollm2").split()
    assert kind == "llama"
    assert int(size) > 200_000_000
