"""What `helm install` says after an installation."""

from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml

from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.manifests.installation import read_build_settings
from dynalign_operator.manifests.overrides import stage_overrides
from support.chart import CHART, NAMESPACE, of_kind, only, render, run_helm

pytestmark = pytest.mark.cluster

POOL = {"nodeSelector": {"pool": "gpu"}}
RUN = AlignmentRun.model_validate(
    {
        "apiVersion": "dynalign.io/v1alpha1",
        "kind": "AlignmentRun",
        "metadata": {"name": "r"},
        "spec": {"model": {"uri": "hf://a/b"}},
    }
)


NOTES_AS_OBJECT = 'kind: Notes\ntext: {{ tpl (.Files.Get "files/NOTES.txt") . | toJson }}\n'


def notes_of(values: dict[str, Any], chart: Path) -> str:
    """The notes, which helm itself shows only where there is a cluster."""
    copytree(CHART, chart)
    (chart / "templates/NOTES.txt").rename(chart / "files/NOTES.txt")
    (chart / "templates/notes.yaml").write_text(NOTES_AS_OBJECT)
    said = run_helm(["template", "dynalign", str(chart), "--namespace", NAMESPACE], values)
    assert said.returncode == 0, said.stderr
    return str(only(list(filter(None, yaml.safe_load_all(said.stdout))), "Notes")["text"])


@pytest.mark.parametrize(
    ("defaults", "are_missed"),
    [
        ({}, False),
        (POOL, False),
        ({"stages": {"judge": POOL}}, True),
        ({"stages": {"judge": POOL, "rollout": POOL}}, False),
        ({"stages": {"fetch": POOL, "train": POOL}}, False),
    ],
)
def test_defaults_that_the_job_of_most_runs_does_not_get_are_named(
    defaults: dict[str, Any], are_missed: bool, tmp_path: Path
) -> None:
    values = {"trainer": {"podDefaults": defaults}}
    assert ("trainer.podDefaults.stages describes pods of" in notes_of(values, tmp_path / "chart")) is are_missed
    (deployment,) = of_kind(render(values), "Deployment")
    variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    settings = read_build_settings({entry["name"]: entry["value"] for entry in variables if "value" in entry})
    judging, rollout = (
        stage_overrides(RUN, stage, settings.pods.pod_defaults) for stage in (Stage.JUDGE, Stage.ROLLOUT)
    )
    assert judging == rollout, "a default run has one kind of pod for both"
    if are_missed:
        assert rollout.node_selector == {}
