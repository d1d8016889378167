"""The seam between operator and stages: what a run names is found by the stage inside the mounts of its pod."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dynalign_contract.config import FetchParams, PromptsParams, StageConfig
from dynalign_contract.source_files import locate
from dynalign_contract.sources import ClaimSource, parse_source
from dynalign_contract.stages import Stage
from dynalign_contract.supplied.paths import supplied_path
from dynalign_operator.planning.plan import JobBundle
from support.builders import RunBuilder, a_run
from support.simulation import Simulation

Resolve = Callable[[StageConfig, Mapping[str, str]], Path]
"""Ask the stage's own function where its file is."""


def bundle_of(run: RunBuilder, stage: Stage) -> JobBundle:
    created = Simulation(run.with_iterations(1).build()).finish().created
    return next(bundle for bundle in created if bundle.step.stage is stage)


def mounts_of(bundle: JobBundle) -> dict[str, dict[str, Any]]:
    """Path in the pod -> its volume."""
    pod = bundle.job["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    return {mount["mountPath"]: volumes[mount["name"]] for mount in pod["containers"][0]["volumeMounts"]}


def supplied(config: StageConfig, environment: Mapping[str, str]) -> Path:
    assert isinstance(config.params, PromptsParams)
    assert config.params.prompts.supplied is not None
    return supplied_path(config.params.prompts.supplied.uri, "prompts.supplied", environment)


def decontamination(config: StageConfig, environment: Mapping[str, str]) -> Path:
    assert isinstance(config.params, PromptsParams)
    assert config.params.prompts.decontamination.uri is not None
    return supplied_path(config.params.prompts.decontamination.uri, "prompts.decontamination", environment)


@pytest.mark.parametrize(
    ("spec", "resolve"),
    [
        ({"prompts": {"supplied": {"uri": "pvc://data.sets/a/mine.jsonl"}}}, supplied),
        ({"prompts": {"decontamination": {"uri": "pvc://data.sets/a/mine.jsonl"}}}, decontamination),
    ],
)
def test_texts_on_a_claim_are_found_in_the_pod(spec: dict[str, Any], resolve: Resolve, tmp_path: Path) -> None:
    bundle = bundle_of(a_run().with_spec(**spec), Stage.PROMPTS)
    config = StageConfig.model_validate_json(bundle.config_map["data"]["stage.json"])
    (mount,) = [p for p, v in mounts_of(bundle).items() if v.get("persistentVolumeClaim", {}).get("readOnly")]
    assert mounts_of(bundle)[mount]["persistentVolumeClaim"]["claimName"] == "data.sets"
    file = tmp_path / mount.lstrip("/") / "a" / "mine.jsonl"
    file.parent.mkdir(parents=True)
    file.touch()
    assert resolve(config, {"DYNALIGN_PVC_ROOT": str(tmp_path / "pvc")}) == file


def test_a_model_on_a_claim_is_found_in_the_pod(tmp_path: Path) -> None:
    bundle = bundle_of(a_run().with_spec(model={"uri": "pvc://weights/qwen/base/"}), Stage.FETCH)
    config = StageConfig.model_validate_json(bundle.config_map["data"]["stage.json"])
    (mount,) = [p for p, v in mounts_of(bundle).items() if v.get("persistentVolumeClaim", {}).get("readOnly")]
    assert isinstance(config.params, FetchParams)
    source = parse_source(config.params.uri)
    assert isinstance(source, ClaimSource)
    located = locate(source, {"DYNALIGN_PVC_ROOT": str(tmp_path / "pvc")})
    assert located.path == tmp_path / mount.lstrip("/") / "qwen" / "base"
    assert located.boundary == tmp_path / mount.lstrip("/")


def test_claims_are_mounted_where_stages_look_by_default() -> None:
    """Without `DYNALIGN_PVC_ROOT`, which no pod sets."""
    bundle = bundle_of(a_run().with_spec(prompts={"supplied": {"uri": "pvc://data/mine.jsonl"}}), Stage.PROMPTS)
    environment = {entry["name"] for entry in bundle.job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert "DYNALIGN_PVC_ROOT" not in environment
    config = StageConfig.model_validate_json(bundle.config_map["data"]["stage.json"])
    assert supplied(config, {}) == Path("/pvc/data/mine.jsonl")
    assert "/pvc/data" in mounts_of(bundle)


@pytest.mark.parametrize("stage", [Stage.FETCH, Stage.PROMPTS])
def test_a_path_on_the_run_s_volume_lies_in_the_pod_s_mount(stage: Stage) -> None:
    spec: dict[str, Any] = {
        "model": {"uri": "/volume/other/export"},
        "prompts": {"supplied": {"uri": "/volume/x.jsonl"}},
    }
    bundle = bundle_of(a_run().with_spec(**spec), stage)
    assert "persistentVolumeClaim" in mounts_of(bundle)["/volume"]
