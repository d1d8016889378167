"""Keys of endpoints: only the stage that talks to one sees its key, and no manifest or configuration holds any."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dynalign_contract.agents import Role, agent_endpoint
from dynalign_contract.stages import Stage
from dynalign_operator.clusters.local.commands import Placement, build_command
from dynalign_operator.clusters.local.workdir import Workdir
from dynalign_operator.manifests.secrets import SECRET_VARIABLES, may_hold_secret
from dynalign_operator.planning.plan import JobBundle
from dynalign_operator.planning.waiting import explain_wait
from support.builders import RunBuilder, a_job, a_run
from support.simulation import Simulation
from support.stage_bundles import first_bundles

SERVER = {"url": "http://vllm:8000/v1", "model": "big"}


def with_key(key: str) -> dict[str, object]:
    return {"model": "Endpoint", "endpoint": {**SERVER, "apiKeySecretRef": {"name": "keys", "key": key}}}


RUN = a_run().with_spec(
    prompts={
        "agents": {
            "author": with_key("a"),
            "critic": {"model": "Endpoint", "endpoint": SERVER},
            "reviser": with_key("r"),
        }
    },
    judging={
        "judges": [
            {"name": "self", "judge": "Live"},
            {"name": "from-far", "judge": "Endpoint", "endpoint": with_key("f")["endpoint"]},
            {"name": "watcher", "judge": "Endpoint", "weight": 0, "endpoint": with_key("w")["endpoint"]},
        ]
    },
    evaluation={"winRate": {"judges": ["Endpoint"], "endpoint": with_key("j")["endpoint"]}},
    rewards=[
        {"name": "short", "type": "Length", "max": 9},
        {
            "name": "tests-pass",
            "type": "Http",
            "endpoint": {"url": "http://rewards:8000/", "apiKeySecretRef": {"name": "keys", "key": "t"}},
        },
        {"name": "open", "type": "Http", "endpoint": {"url": "http://rewards:8000/"}},
    ],
    tracking={
        "mlflow": {"url": "https://mlflow.example.com", "apiKeySecretRef": {"name": "keys", "key": "ml"}},
    },
    model={
        "uri": "s3://models/base",
        "credentialsSecretRef": {"name": "keys", "usernameKey": "mu", "passwordKey": "mp"},
    },
    export={
        "publish": [
            {"s3": {"bucket": "open", "prefix": "mine"}},
            {"hub": {"repository": "a/b", "tokenSecretRef": {"name": "keys", "key": "h"}}},
            {
                "oci": {
                    "registry": "r",
                    "repository": "m",
                    "credentialsSecretRef": {"name": "keys", "passwordKey": "op"},
                }
            },
            {
                "s3": {
                    "bucket": "models",
                    "prefix": "mine",
                    "credentialsSecretRef": {"name": "keys", "usernameKey": "pu", "passwordKey": "pp"},
                }
            },
        ]
    },
)
KEYS = {
    Stage.FETCH: {
        "DYNALIGN_MODEL_USERNAME": "mu",
        "DYNALIGN_MODEL_PASSWORD": "mp",
        "DYNALIGN_REWARD_TESTS_PASS_API_KEY": "t",
    },
    Stage.PROMPTS: {"DYNALIGN_AUTHOR_API_KEY": "a", "DYNALIGN_REVISER_API_KEY": "r"},
    Stage.JUDGE: {
        "DYNALIGN_JUDGE_FROM_FAR_API_KEY": "f",
        "DYNALIGN_JUDGE_WATCHER_API_KEY": "w",
        "DYNALIGN_REWARD_TESTS_PASS_API_KEY": "t",
    },
    Stage.EVALUATE: {
        "DYNALIGN_JUDGE_API_KEY": "j",
        "DYNALIGN_JUDGE_FROM_FAR_API_KEY": "f",
        "DYNALIGN_REWARD_TESTS_PASS_API_KEY": "t",
    },
    Stage.EXPORT: {
        "DYNALIGN_PUBLISH_1_TOKEN": "h",
        "DYNALIGN_PUBLISH_2_USERNAME": "username",
        "DYNALIGN_PUBLISH_2_PASSWORD": "op",
        "DYNALIGN_PUBLISH_3_USERNAME": "pu",
        "DYNALIGN_PUBLISH_3_PASSWORD": "pp",
    },
    Stage.REPORT: {"DYNALIGN_MLFLOW_API_KEY": "ml"},
}
KEYS[Stage.ROLLOUT] = {**KEYS[Stage.PROMPTS], **KEYS[Stage.JUDGE], **KEYS[Stage.EVALUATE]}
"""Stage -> variable -> key of the Secret. A judge without weight is not asked for held-out rewards."""


def bundles(run: RunBuilder) -> dict[Stage, JobBundle]:
    return first_bundles(run, lambda given: Simulation(given).finish().all_created)


def secrets_of(bundle: JobBundle) -> dict[str, object]:
    (container,) = bundle.job["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry["valueFrom"] for entry in container["env"] if "valueFrom" in entry}


def test_a_docker_configuration_takes_the_place_of_user_name_and_password() -> None:
    """A Secret of type kubernetes.io/dockerconfigjson has no other keys, so none may be asked for."""
    reference = {"name": "registry", "dockerConfigKey": ".dockerconfigjson"}
    target = {"registry": "r", "repository": "m", "credentialsSecretRef": reference}
    run = a_run().with_spec(
        model={"uri": "oci://r/base:v1", "credentialsSecretRef": reference}, export={"publish": [{"oci": target}]}
    )
    found = {stage: secrets_of(bundle) for stage, bundle in bundles(run).items()}
    asked = {"secretKeyRef": {"name": "registry", "key": ".dockerconfigjson"}}
    assert {stage: secrets for stage, secrets in found.items() if secrets} == {
        Stage.FETCH: {"DYNALIGN_MODEL_DOCKER_CONFIG": asked},
        Stage.EXPORT: {"DYNALIGN_PUBLISH_0_DOCKER_CONFIG": asked},
    }
    assert all(may_hold_secret(variable) for secrets in found.values() for variable in secrets)


def test_a_stage_sees_the_keys_of_its_own_endpoints_only() -> None:
    found = {stage: secrets_of(bundle) for stage, bundle in bundles(RUN).items()}
    assert {stage: secrets for stage, secrets in found.items() if secrets} == {
        stage: {variable: {"secretKeyRef": {"name": "keys", "key": key}} for variable, key in keys.items()}
        for stage, keys in KEYS.items()
    }


def test_every_variable_that_may_hold_a_secret_is_known() -> None:
    agents = {agent_endpoint(role).variable for role in Role}
    model = {"HF_TOKEN", "DYNALIGN_MODEL_USERNAME", "DYNALIGN_MODEL_PASSWORD", "DYNALIGN_MODEL_DOCKER_CONFIG"}
    assert {*model, *agents, "DYNALIGN_JUDGE_API_KEY", "DYNALIGN_MLFLOW_API_KEY"} == SECRET_VARIABLES
    assert all(may_hold_secret(variable) for keys in KEYS.values() for variable in keys)
    assert not any(map(may_hold_secret, ("PATH", "DYNALIGN_CACHE", "DYNALIGN_JUDGE_OUTSIDE", "MY_API_KEY")))


@pytest.mark.parametrize(
    "stage",
    [
        Stage.FETCH,
        Stage.ROLLOUT,
        Stage.PROMPTS,
        Stage.GENERATE,
        Stage.JUDGE,
        Stage.EVALUATE,
        Stage.EXPORT,
        Stage.REPORT,
    ],
)
def test_on_this_machine_a_stage_inherits_no_key_that_its_manifest_does_not_ask_for(stage: Stage) -> None:
    held = {*SECRET_VARIABLES, *(variable for keys in KEYS.values() for variable in keys)}
    inherited = {name: f"value of {name}" for name in held} | {"PATH": "/bin"}
    placement = Placement(Workdir(Path("/runs/mine")), Path("/home/me/cache"), inherited)
    command = build_command(bundles(RUN)[stage].job, 0, 4321, placement)
    seen = {name for name in command.environment if name in held}
    assert seen == set(KEYS.get(stage, {}))
    assert command.environment["PATH"] == "/bin"


def test_configuration_and_manifest_hold_the_reference_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNALIGN_AUTHOR_API_KEY", "sk-very-secret")
    for bundle in bundles(RUN).values():
        assert "sk-very-secret" not in json.dumps([bundle.job, bundle.config_map])
    endpoint = json.loads(bundles(RUN)[Stage.PROMPTS].config_map["data"]["stage.json"])["params"]["prompts"]["agents"]
    assert endpoint["author"]["endpoint"]["apiKeySecretRef"] == {"name": "keys", "key": "a"}


def test_a_secret_that_is_missing_is_named_with_the_field_that_asks_for_it() -> None:
    def explain(stage: Stage) -> str:
        job = a_job(stage, 0).saying('CreateContainerConfigError: secret "keys" not found').build()
        return explain_wait(RUN.build(), replace(job, reason="CreateContainerConfigError"))

    said = explain(Stage.PROMPTS)
    assert "spec.prompts.agents.author.endpoint.apiKeySecretRef asks for the key a of keys" in said
    assert "spec.prompts.agents.reviser.endpoint.apiKeySecretRef asks for the key r of keys" in said
    assert "spec.evaluation.winRate.endpoint.apiKeySecretRef asks for the key j of keys" in explain(Stage.EVALUATE)
    assert "spec.rewards[1].endpoint.apiKeySecretRef asks for the key t of keys" in explain(Stage.JUDGE)
    assert "spec.judging.judges[1].endpoint.apiKeySecretRef asks for the key f of keys" in explain(Stage.JUDGE)
    exported = a_job(Stage.EXPORT).saying('CreateContainerConfigError: secret "keys" not found').build()
    said = explain_wait(RUN.build(), replace(exported, reason="CreateContainerConfigError"))
    assert "spec.export.publish[3].s3.credentialsSecretRef asks for the key pp of keys" in said


def test_a_stage_whose_agents_are_all_elsewhere_asks_for_no_gpu() -> None:
    def gpus(run: RunBuilder) -> object:
        (container,) = bundles(run)[Stage.PROMPTS].job["spec"]["template"]["spec"]["containers"]
        return container["resources"].get("limits", {}).get("nvidia.com/gpu")

    assert (gpus(a_run()), gpus(RUN)) == ("1", None)
    mixed = a_run().with_spec(prompts={"agents": {"author": with_key("a")}})
    assert gpus(mixed) == "1"


def test_a_judge_stage_whose_judges_are_all_elsewhere_asks_for_no_gpu() -> None:
    def gpus(*judges: dict[str, object]) -> object:
        run = a_run().with_spec(judging={"judges": list(judges)})
        (container,) = bundles(run)[Stage.JUDGE].job["spec"]["template"]["spec"]["containers"]
        return container["resources"].get("limits", {}).get("nvidia.com/gpu")

    outside: dict[str, object] = {"name": "outside", "judge": "Endpoint", "endpoint": SERVER}
    assert gpus() == gpus(outside, {"name": "self", "judge": "Live"}) == "1"
    assert gpus(outside) is None


def test_a_policy_is_loaded_only_where_an_agent_plays_it() -> None:
    def policies(run: RunBuilder) -> list[str]:
        created = Simulation(run.with_iterations(2).build()).finish().created
        (prompts,) = [b for b in created if b.step.stage is Stage.PROMPTS and b.step.iteration == 1]
        return [
            name
            for name in json.loads(prompts.config_map["data"]["stage.json"])["inputs"]
            if name.startswith("iteration")
        ]

    assert policies(RUN) == []
    assert policies(a_run()) == ["iteration-000"]
    corrected = a_run().with_spec(prompts={"agents": {"author": {"model": "Base"}, "reviser": {"model": "Policy"}}})
    assert policies(corrected) == ["iteration-000"]
