"""`dynalign render` shows what the planner would create, in order."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from dynalign_contract.config import JudgeParams, RolloutParams, StageConfig
from dynalign_operator.cli.main import app
from support.chart import of_kind
from support.chart import render as render_chart

ROOT = Path(__file__).parents[3]
SMOLLM2 = ROOT / "examples/smollm2.yaml"


def render(*arguments: str, file: Path = SMOLLM2) -> list[dict[str, Any]]:
    result = CliRunner().invoke(app, ["render", str(file), *arguments])
    assert result.exit_code == 0, result.output
    return list(yaml.safe_load_all(result.stdout))


def kinds(objects: list[dict[str, Any]]) -> list[str]:
    return [f"{o['kind']}/{o['metadata']['name']}" for o in objects]


def config(objects: list[dict[str, Any]]) -> StageConfig:
    return StageConfig.model_validate_json(next(o["data"]["stage.json"] for o in objects if o["kind"] == "ConfigMap"))


def test_the_first_stage() -> None:
    assert kinds(render()) == [
        "PersistentVolumeClaim/ca-smollm2",
        "ConfigMap/ca-smollm2-fetch-a1",
        "Job/ca-smollm2-fetch-a1",
    ]


def test_all_stages_in_order() -> None:
    jobs = [name.removeprefix("Job/ca-smollm2-") for name in kinds(render("--all")) if name.startswith("Job/")]
    reports = [name for name in jobs if name.startswith("report-")]
    assert reports == [f"report-a{attempt}" for attempt in (1, 2, 3, 4)], "one for each iteration and the end"
    jobs = [name for name in jobs if name not in reports]
    loop = [f"i{i:03d}-{stage}-a1" for i in range(3) for stage in ("rollout", "train")]
    assert jobs == ["fetch-a1", *loop, "i002-evaluate-a1", "export-a1"]


def test_one_stage_of_one_iteration() -> None:
    objects = render("--stage", "train", "--iteration", "2")
    assert kinds(objects)[1:] == ["ConfigMap/ca-smollm2-i002-train-a1", "Job/ca-smollm2-i002-train-a1"]
    stage = config(objects)
    assert stage.inputs.keys() == {"model", "rollouts", "judgements", "iteration-001"}
    assert {artifact.digest for artifact in stage.inputs.values()} == {"sha256:" + "0" * 64}


@pytest.mark.parametrize(
    ("stage", "iteration", "job"),
    [
        ("generate", 2, "rollout"),
        ("evaluate", 1, "rollout"),
        ("evaluate", 2, "evaluate"),
    ],
)
def test_a_stage_is_found_in_the_rollout_that_does_it(stage: str, iteration: int, job: str) -> None:
    (name,) = (n for n in kinds(render("--stage", stage, "--iteration", str(iteration))) if n.startswith("Job/"))
    assert name == f"Job/ca-smollm2-i002-{job}-a1"


def test_an_installation_s_values_decide_about_the_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the chart's values to what is rendered: OpenShift gives pods their identity, a mirror stands for the hub."""
    values = {"trainer": {"podSecurity": None, "hubEndpoint": "https://hub.example.com", "image": {"tag": "9.9"}}}
    (deployment,) = of_kind(render_chart(values), "Deployment")
    for entry in deployment["spec"]["template"]["spec"]["containers"][0]["env"]:
        if "value" in entry:
            monkeypatch.setenv(entry["name"], entry["value"])
    (job,) = (found for found in render() if found["kind"] == "Job")
    pod = job["spec"]["template"]["spec"]
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & pod["securityContext"].keys()
    assert pod["containers"][0]["image"].endswith(":9.9")
    assert {"name": "HF_ENDPOINT", "value": "https://hub.example.com"} in pod["containers"][0]["env"]


def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNALIGN_TRAINER_PODS", '{"hubEndpont": "x"}')
    result = CliRunner().invoke(app, ["render", str(SMOLLM2)])
    assert result.exit_code == 10
    assert "trainer.hubEndpont" in result.output


def test_unknown_digests_of_shards_stay_unknown(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(SMOLLM2.read_text().replace("candidates: 4", "candidates: 4, shards: 2"))
    rollouts = config(render("--stage", "train", "--iteration", "0", file=file)).inputs["rollouts"]
    assert rollouts.shards == 2
    assert rollouts.digest == "sha256:" + "0" * 64


def test_own_objective_travels_in_the_stage_config() -> None:
    params = config(
        render("--stage", "judge", "--iteration", "0", file=ROOT / "crds/samples/own-objective.yaml")
    ).params
    assert isinstance(params, RolloutParams)
    (judge,) = (part.params for part in params.parts if isinstance(part.params, JudgeParams))
    assert judge.objective.name == "helpful-honest-harmless"


def test_no_such_stage() -> None:
    result = CliRunner().invoke(app, ["render", str(SMOLLM2), "--stage", "train", "--iteration", "7"])
    assert result.exit_code == 10
    assert "the run has no such stage; it has the stages fetch, rollout," in result.stderr
    assert result.stderr.rstrip().endswith("the iterations 0 to 2.")


def test_bad_file_is_refused_as_by_validate() -> None:
    bad = ROOT / "tests/data/bad_runs/out-of-range-low.yaml"
    result = CliRunner().invoke(app, ["render", str(bad)])
    assert result.exit_code == 10
    assert result.stderr == CliRunner().invoke(app, ["validate", str(bad)]).stderr
