"""No text of a run leads the operator out of the run's namespace, or somebody else's ConfigMap into a status.

Every text field of the CRD, map keys and list items included, gets every text of `HOSTILE`, one at a time. What the
models take is reconciled by the operator's own code against an API server that records the requests. Then the models are
passed by, so that what stands behind them is tried too.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote

import pytest
import yaml
from pydantic import ValidationError
from pydantic.alias_generators import to_snake

from dynalign_contract.objective import builtin_objective
from dynalign_operator.api.schema import Schema
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.kubernetes import runs as stored_runs
from dynalign_operator.clusters.kubernetes.cluster import KubeCluster
from dynalign_operator.clusters.kubernetes.store import Kind, Store
from dynalign_operator.generate.crd import build_schema
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.planning.errors import BadObjectiveError
from dynalign_operator.planning.objectives import read_objective
from dynalign_operator.planning.observed import Observed
from dynalign_operator.reconcile import reconcile
from support.recording_api import RecordingApi, recording_api, resolved

pytestmark = pytest.mark.slow

Place = tuple[str, ...]
"""Names of fields; `[]` is a list's item, `{key}` a map's key and `{}` its value."""

SECRET = "hunter2"  # noqa: S105 - what must not be seen
KEY = RunKey("team-a", "r")
RUN_PATH = "/apis/dynalign.io/v1alpha1/namespaces/team-a/alignmentruns/r"
HOSTILE = {
    "traversal": "../../team-b/configmaps/objectives",
    "deep traversal": "../../../../../api/v1/namespaces/kube-system/configmaps/cluster-config",
    "one up": "..",
    "absolute": "/api/v1/namespaces/team-b/configmaps/objectives",
    "encoded": "%2e%2e%2f%2e%2e%2fteam-b%2fconfigmaps%2fobjectives",
    "half encoded": "..%2f..%2fteam-b%2fconfigmaps%2fobjectives",
    "encoded twice": "%252e%252e%252f%252e%252e%252fteam-b",
    "query": "mine?watch=true&fieldSelector=metadata.namespace%3Dteam-b",
    "fragment": "mine#/../../team-b",
    "backslashes": "..\\..\\team-b\\configmaps\\objectives",
    "a claim above": "pvc://../../team-b/configmaps/objectives.jsonl",
    "out of a claim": "pvc://mine/../../team-b/objectives.jsonl",
    "out of the hub": "hf://../../team-b",
    "a line": "mine\n../../team-b/configmaps/objectives",
    "nothing": "mine\0../../team-b",
    "unicode": "\uff0e\uff0e\u2215\uff0e\uff0e\u2215team-b",
}
BEHIND_THE_MODELS = ("traversal", "half encoded", "query", "a claim above")
SPEC: dict[str, Any] = {
    "model": {"uri": "hf://org/name", "tokenSecretRef": {"name": "hub", "key": "token"}},
    "objective": {"configMapRef": {"name": "mine", "key": "objective.yaml"}},
    "prompts": {
        "seeds": {"facets": {"topic": ["a"]}},
        "supplied": {"uri": "pvc://data/p.jsonl"},
        "decontamination": {"uri": "pvc://bench/b.jsonl"},
        "languages": ["en"],
        "agents": {
            name: {
                "model": "Endpoint",
                "endpoint": {"url": "http://h/v1", "model": "m", "apiKeySecretRef": {"name": "s", "key": "k"}},
            }
            for name in ("author", "critic", "reviser")
        },
    },
    "evaluation": {
        "winRate": {
            "judges": ["Endpoint"],
            "endpoint": {"url": "http://h/v1", "model": "m", "apiKeySecretRef": {"name": "s", "key": "k"}},
        },
        "capability": {"tasks": ["ifeval"]},
    },
    "training": {"lora": {"targetModules": ["q_proj"]}},
    "export": {
        "publish": [
            {"hub": {"repository": "a/b", "tokenSecretRef": {"name": "s", "key": "k"}}},
            {"oci": {"registry": "r", "repository": "m"}},
            {"s3": {"bucket": "models", "prefix": "mine", "credentialsSecretRef": {"name": "s"}}},
        ]
    },
    "storage": {"size": "1Gi", "storageClassName": "fast"},
    "scheduling": {"queueName": "q", "priorityClassName": "high"},
    "stages": {
        "fetch": {
            "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}},
            "nodeSelector": {"zone": "a"},
            "tolerations": [{"key": "a", "value": "b"}],
            "priorityClassName": "high",
            "runtimeClassName": "nvidia",
            "podLabels": {"team": "a"},
            "podAnnotations": {"note": "a"},
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        },
        "train": {"env": [{"name": "A", "value": "a"}]},
    },
    "policy": {"deadline": "72h"},
}
"""Every text field that a run can have at once; `storage.existingClaim` takes the place of two of them."""
OBJECTIVE = builtin_objective("helpful-honest-harmless").model_dump(mode="json", by_alias=True)
FOREIGN = {
    "/api/v1/namespaces/team-b/configmaps/objectives": {
        f"{SECRET}.yaml": SECRET,
        "objective.yaml": f"aspects: {SECRET}",
    },
    "/api/v1/namespaces/kube-system/configmaps/cluster-config": {f"{SECRET}.txt": SECRET, "objective.yaml": SECRET},
}


def text_places(node: Schema, at: Place = ()) -> Iterator[Place]:
    """Every place of a schema where a text may stand that is not one of a few."""
    if node.get("type") == "string" or node.get("x-kubernetes-int-or-string"):
        if "enum" not in node:
            yield at
        return
    for name, child in node.get("properties", {}).items():
        yield from text_places(child, (*at, name))
    if "items" in node:
        yield from text_places(node["items"], (*at, "[]"))
    if "additionalProperties" in node:
        yield (*at, "{key}")
        yield from text_places(node["additionalProperties"], (*at, "{}"))


PLACES = [
    place
    for place in text_places(build_schema()["properties"]["spec"])
    if place[0] != "stages" or place[1] == "fetch"  # the others have the same fields
]


def with_text(spec: Any, place: Place, text: str) -> Any:
    """The specification with a text at one place; what does not exist on the way is made."""
    if not place:
        return text
    head, rest = place[0], place[1:]
    if head == "[]":
        return [with_text(spec[0] if spec else {}, rest, text), *list(spec or ())[1:]]
    known = dict(spec or {})
    if head == "{key}":
        return {text: next(iter(known.values()), "1")}
    name = next(iter(known), "a") if head == "{}" else head
    return {**known, name: with_text(known.get(name), rest, text)}


def spec_with(place: Place, text: str) -> dict[str, Any]:
    spec = deepcopy(SPEC)
    if place[:2] == ("storage", "existingClaim"):
        spec["storage"] = {}
    found: dict[str, Any] = with_text(spec, place, text)
    return found


def stored(spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "r", "namespace": "team-a", "uid": "u", "resourceVersion": "1", "generation": 1}
    return {"apiVersion": "dynalign.io/v1alpha1", "kind": "AlignmentRun", "metadata": metadata, "spec": spec}


NEW_CLAIM = AlignmentRun.model_validate(stored(SPEC))
OWN_CLAIM = AlignmentRun.model_validate(stored({**SPEC, "storage": {"existingClaim": "mine"}}))


def without_models(place: Place, text: str) -> AlignmentRun:
    """A run with the text at one place, as if no model had looked at it."""

    def put(value: Any, rest: Place) -> Any:
        if not rest:
            return text
        if value is None or (not value and rest[0] in ("[]", "{key}", "{}")):
            return (text,) if rest == ("[]",) else value  # what `SPEC` leaves out is tried with the models alone
        if rest[0] == "[]":
            return (put(value[0], rest[1:]), *value[1:])
        if rest[0] in ("{key}", "{}"):
            (key, found), *_ = value.items()
            return {text: found} if rest[0] == "{key}" else {key: put(found, rest[1:])}
        name = rest[0] if hasattr(value, rest[0]) else to_snake(rest[0])
        return value.model_copy(update={name: put(getattr(value, name), rest[1:])})

    run = OWN_CLAIM if place[:2] == ("storage", "existingClaim") else NEW_CLAIM
    return run.model_copy(update={"spec": put(run.spec, place)})


async def work(server: RecordingApi, client: Any, run: dict[str, Any], parsed: AlignmentRun | None = None) -> None:
    """One reconcile by a process that has just begun, with an empty namespace; `parsed` passes the models by."""
    server.objects = {RUN_PATH: run, **{path: {"data": data} for path, data in FOREIGN.items()}}
    server.put("/api/v1/namespaces/team-a/configmaps/mine", {"data": {"objective.yaml": yaml.safe_dump(OBJECTIVE)}})
    for claim in ("data", "bench", "mine"):
        path = f"/api/v1/namespaces/team-a/persistentvolumeclaims/{claim}"
        server.put(path, {"spec": {"accessModes": ["ReadWriteMany"]}})
    server.requests.clear()
    store = Store()
    store.put(Kind.RUN, run)
    cluster, now = KubeCluster(client, store, {}), datetime.now(UTC)
    try:
        with patch.object(stored_runs, "parse_run", lambda thing: parsed) if parsed is not None else patch("sys.path"):
            await reconcile(cluster, KEY, now, BuildSettings())
    except Exception:  # noqa: BLE001 - whatever it is, it is not a request
        assert parsed is not None, "only what no model has looked at may fail later"
        return


SEGMENT = r"[A-Za-z0-9._~-]+"
EXPECTED = re.compile(
    rf"/api/v1/namespaces/team-a/(configmaps|persistentvolumeclaims|services|events)(/{SEGMENT})?"
    rf"|/apis/batch/v1/namespaces/team-a/jobs(/{SEGMENT})?"
    r"|/apis/dynalign\.io/v1alpha1/namespaces/team-a/alignmentruns/r/status"
)


def check(server: RecordingApi, what: str) -> None:
    """Nothing was asked for outside the namespace, and nothing of anybody else's was written down."""
    assert server.requests, f"{what}: nothing was done"
    for path in server.paths:
        where = unquote(path.partition("?")[0])
        assert EXPECTED.fullmatch(where), f"{what}: {path}"
        assert "?" not in path, f"{what}: {path}"
        assert resolved(path) == where, f"{what}: {path}"
    written = {path: thing for path, thing in server.objects.items() if path not in FOREIGN}
    assert SECRET not in json.dumps(written), f"{what}: somebody else's ConfigMap was written down"


def test_every_place_is_tried() -> None:
    names = {".".join(place) for place in PLACES}
    assert {"objective.configMapRef.name", "objective.configMapRef.key", "storage.existingClaim"} <= names
    assert {
        "prompts.supplied.uri",
        "model.uri",
        "stages.fetch.nodeSelector.{key}",
        "prompts.seeds.facets.{}.[]",
    } <= names
    assert len(PLACES) > 40
    AlignmentRun.model_validate(stored(SPEC))


def test_no_text_that_the_models_take_leads_out_of_the_namespace(tmp_path: Path) -> None:
    taken: list[str] = []

    async def story() -> None:
        async with recording_api(tmp_path) as (server, client):
            await work(server, client, stored(SPEC))
            check(server, "as it is")
            assert len(server.created("jobs")) == 1, server.objects[RUN_PATH]["status"]
            for place in PLACES:
                for kind, text in HOSTILE.items():
                    run = stored(spec_with(place, text))
                    try:
                        AlignmentRun.model_validate(run)
                    except ValidationError:
                        continue
                    taken.append(".".join(place))
                    await work(server, client, run)
                    check(server, f"{'.'.join(place)}: {kind}")

    asyncio.run(story())
    names = {"objective", "storage", "scheduling"}
    assert not names & {place.split(".")[0] for place in taken}, "no such text is a name of anything"
    assert "prompts.seeds.facets.{}.[]" in taken, "free text stays free"


def test_what_the_models_would_have_to_stop_stops_behind_them_too(tmp_path: Path) -> None:
    async def story() -> None:
        async with recording_api(tmp_path) as (server, client):
            for place in PLACES:
                for kind in BEHIND_THE_MODELS:
                    run = without_models(place, HOSTILE[kind])
                    await work(server, client, stored(SPEC), run)
                    if server.requests:
                        check(server, f"{'.'.join(place)}: {kind}")

    asyncio.run(story())


@pytest.mark.parametrize("place", ["objective.configMapRef.name", "objective.configMapRef.key", "prompts.supplied.uri"])
def test_a_stored_run_with_such_a_name_ends_with_a_sentence(place: str, tmp_path: Path) -> None:
    """It may be older than the patterns of the CRD."""

    async def story() -> dict[str, Any]:
        async with recording_api(tmp_path) as (server, client):
            await work(server, client, stored(spec_with(tuple(place.split(".")), HOSTILE["traversal"])))
            check(server, place)
            status: dict[str, Any] = server.objects[RUN_PATH]["status"]
            return status

    status = asyncio.run(story())
    (stalled,) = [c for c in status["conditions"] if c["type"] == "Stalled"]
    assert (status["phase"], stalled["reason"]) == ("Failed", "BadConfig")
    assert f"spec.{place} is " in stalled["message"]
    assert "write " in stalled["message"]


def mistakes(value: Any) -> Iterator[Any]:
    """Every way to put the secret in place of one thing, or of one name, in an objective."""
    yield from (f"${SECRET} ${{", [SECRET], {SECRET: [SECRET]})
    if isinstance(value, dict):
        for name, child in value.items():
            rest = {key: other for key, other in value.items() if key != name}
            yield {**rest, SECRET: child}
            yield from ({**value, name: other} for other in mistakes(child))
    if isinstance(value, list) and value:
        yield from ([other, *value[1:]] for other in mistakes(value[0]))
        yield [*value, *value]


TEXTS = [
    *(yaml.safe_dump(mistake, sort_keys=False) for mistake in mistakes(OBJECTIVE)),
    *(
        f"{SECRET}: [1",
        f"*{SECRET}",
        f"a: !{SECRET} x",
        f"{SECRET}: 1\n{SECRET}: 2",
        f'a: "\\{SECRET}"',
        f"- {SECRET}",
        f"\t{SECRET}",
    ),
    *(f"name: x\n---\n{SECRET}: 1", f"&{SECRET} [*{SECRET}]", f"{{[{SECRET}]: 1}}"),
]


def refusal_of(run: AlignmentRun, objective: str) -> str:
    """What the status would say of an objective; empty where it is a good one."""
    try:
        read_objective(Observed(run, (), {"mine": {"objective.yaml": objective, f"{SECRET}.txt": SECRET}}))
    except BadObjectiveError as error:
        return str(error)
    return ""


def test_a_status_repeats_nothing_of_the_configmap_that_an_objective_names() -> None:
    """It may be any of the namespace, and who reads runs need not be allowed to read it."""
    run = AlignmentRun.model_validate(stored(SPEC))
    said = [message for text in TEXTS if (message := refusal_of(run, text))]
    assert not [message for message in said if SECRET in message]
    assert all("key objective.yaml" in message for message in said)
    assert len(said) > 100
    with pytest.raises(BadObjectiveError) as caught:
        read_objective(Observed(run, (), {"mine": {f"{SECRET}.txt": SECRET}}))
    assert SECRET not in str(caught.value)
