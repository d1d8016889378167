"""States of a cluster that no operator expects: edited status, foreign Jobs and pods, broken results, odd clocks.

Promises: `plan` never raises, nor does anything that reads what others have written; what it decides can be written,
read again and exported as metrics.
"""

import contextlib
import copy
import json
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from benchmarks.fuzz.texts import change_text
from benchmarks.fuzz.trials import Fuzzer, Trial
from benchmarks.fuzz.values import ODD_TEXTS, ODD_VALUES
from dynalign_contract.objective import BUILTIN
from dynalign_contract.plain_text import has_hidden
from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.kubernetes.observe import observe_claim, observe_job
from dynalign_operator.clusters.kubernetes.runs import InvalidRunError, parse_run
from dynalign_operator.clusters.stage_metrics import parse_metrics
from dynalign_operator.manifests.build_settings import BuildSettings
from dynalign_operator.metrics.runs import KnownRun, run_families
from dynalign_operator.planning.observed import JobObservation, JobProgress, Observed
from dynalign_operator.planning.plan import Plan
from dynalign_operator.planning.planner import plan

Object = dict[str, Any]

_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
_OBJECTIVE: Final = (resources.files("dynalign_contract") / "objectives" / f"{BUILTIN[1]}.yaml").read_text()
_SETTINGS: Final = BuildSettings()
_STORABLE: Final = [value for value in ODD_VALUES if not isinstance(value, float) or math.isfinite(value)]
"""What an API server stores: JSON has no infinity."""
_STEPS: Final = 6
"""The planner's steps before and between the oddities."""


@contextmanager
def _open() -> Iterator[Trial]:
    yield try_state


STATES: Final = Fuzzer("states", _open)


def try_state(rng: random.Random) -> str:
    """Lead a run into an odd state and let the operator look at it. Raises AssertionError for a broken promise."""
    world = _World(rng)
    outcome = "planned"
    for _ in range(rng.randint(1, _STEPS)):
        world.happen()
        if rng.random() < 0.5:
            world.disturb()
        if (found := world.look()) is None:
            return "run refused"
        outcome = found
    return outcome


class _World:
    """The run as the API server has it, its Jobs and their pods."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._now = _EPOCH
        self.run: Object = {
            "apiVersion": "dynalign.io/v1alpha1",
            "kind": "AlignmentRun",
            "metadata": {"name": "r", "namespace": "team", "uid": "u-1", "generation": 1, "resourceVersion": "1"},
            "spec": _a_spec(rng),
        }
        self.jobs: dict[str, Object] = {}
        self.pods: list[Object] = []

    def look(self) -> str | None:
        """One reconcile: observe, plan, write the status, create the Jobs. None where the run is none."""
        try:
            run = parse_run(self.run)
        except InvalidRunError as error:
            assert str(error), "a run is refused without a word"  # noqa: S101, PT017 - a fuzzer asserts
            return None
        jobs = [found for job in self.jobs.values() if (found := self._observe(job)) is not None]
        claims = {"mine": observe_claim({"spec": {}, "status": {"accessModes": self._rng.choice((None, [], ["RWX"]))}})}
        observed = Observed(run, tuple(jobs), self._config_maps(), self._rng.choice((None, {}, claims)))
        decided = plan(observed, self._now, _SETTINGS)
        _check_plan(run, decided)
        self._export(run, decided)
        self.run["status"] = json.loads(decided.status.to_json())
        for bundle in decided.create:
            self._store(json.loads(json.dumps(bundle.job)))
        for name in decided.delete:
            if self._rng.random() < 0.5:
                self.jobs.pop(name, None)
            else:
                self.jobs[name]["metadata"]["deletionTimestamp"] = self._time()
        return f"phase {decided.status.phase}"

    def happen(self) -> None:
        """Time goes on, pods start, Jobs end."""
        self._now += timedelta(seconds=self._rng.choice((0, 1, 60, 3_600, 90_000, 10**7, 10**9)))
        for job in self.jobs.values():
            match self._rng.randrange(5):
                case 0 | 1:
                    self._end(job, "Complete")
                case 2:
                    self._end(job, "Failed")
                case 3:
                    self._run_pod(job)

    def disturb(self) -> None:
        """Somebody edits, deletes or forges."""
        match self._rng.randrange(6):
            case 0 | 1:
                _edit(self._rng, self.run.setdefault("status", {}))
            case 2:
                _edit(self._rng, self.run["spec"])
                self.run["metadata"]["generation"] += 1
            case 3 if self.jobs:
                _edit_labels(self._rng, self._rng.choice(list(self.jobs.values())))
            case 4 if self.pods:
                _edit_labels(self._rng, self._rng.choice(self.pods))
            case 5 if self.jobs:
                self.jobs.pop(self._rng.choice(list(self.jobs)))

    def _config_maps(self) -> dict[str, dict[str, str]]:
        """The ConfigMap with the objective: whole, damaged, or gone."""
        text = _OBJECTIVE
        while self._rng.random() < 0.5:
            text = change_text(self._rng, text)
        states: tuple[dict[str, dict[str, str]], ...] = ({"mine": {"objective.yaml": text}}, {"mine": {}}, {})
        return self._rng.choice(states)

    def _observe(self, job: Object) -> JobObservation | None:
        name = job["metadata"]["name"]
        pods = [pod for pod in self.pods if pod["metadata"]["labels"].get("job-name") == name]
        progress = self._rng.choice((None, JobProgress(_number(self._rng), _number(self._rng))))
        moved = self._rng.choice((None, self._now, _EPOCH))
        return observe_job(job, pods, progress=progress, last_progress_time=moved)

    def _export(self, run: AlignmentRun, decided: Plan) -> None:
        live = () if self._rng.random() < 0.5 else (parse_metrics(_exposition(self._rng)),)
        with contextlib.suppress(ValueError):
            live = (*live, parse_metrics(_junk_exposition(self._rng)))
        registry = CollectorRegistry()
        known = KnownRun(RunKey("team", "r"), decided.status, run.spec, live)
        families = run_families([known])
        registry.register(_Fixed(families))
        generate_latest(registry)

    def _store(self, job: Object) -> None:
        job["metadata"] |= {"uid": f"j-{len(self.jobs)}", "creationTimestamp": self._time()}
        self.jobs[job["metadata"]["name"]] = job

    def _run_pod(self, job: Object) -> Object:
        pod: Object = {
            "metadata": {
                "name": f"p-{len(self.pods)}",
                "creationTimestamp": self._time(),
                "labels": {**job["metadata"].get("labels", {}), "job-name": job["metadata"]["name"]},
                "annotations": {"batch.kubernetes.io/job-completion-index": str(self._rng.choice((0, 0, 0, 1, 7)))},
            },
            "status": {
                "phase": self._rng.choice(("Pending", "Running", "Unknown")),
                "containerStatuses": [
                    {"name": "stage", "state": self._rng.choice(_STATES_OF_CONTAINERS)(self._time())}
                ],
            },
        }
        if self._rng.random() < 0.2:
            del pod["status"]["containerStatuses"]
        self.pods.append(pod)
        return pod

    def _end(self, job: Object, kind: str) -> None:
        condition = {"type": kind, "status": "True", "lastTransitionTime": self._time()}
        if kind == "Failed":
            condition |= {
                "reason": self._rng.choice(("BackoffLimitExceeded", "PodFailurePolicy", "DeadlineExceeded", ""))
            }
            condition |= {"message": self._rng.choice(ODD_TEXTS)}
        job["status"] = {"conditions": [condition], "completionTime": self._time()}
        for index in range(int(job["spec"].get("completions") or 1)):
            if self._rng.random() < 0.9:
                pod = self._run_pod(job)
                pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] = str(index)
                good = kind == "Complete"
                ended: Object = {"exitCode": 0 if good else self._rng.choice((1, 2, 10, 11, 12, 137, 143, 255, -1))}
                ended |= {
                    "finishedAt": self._time(),
                    "startedAt": self._time(),
                    "message": _message(self._rng, good=good),
                }
                pod["status"] = {"phase": "Succeeded" if good else "Failed"}
                pod["status"]["containerStatuses"] = [{"name": "stage", "state": {"terminated": ended}}]

    def _time(self) -> str:
        moment = self._now + timedelta(seconds=self._rng.choice((-86_400, -1, 0, 0, 0, 1, 86_400)))
        odd = (
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "2026-01-01T00:00:00.123456Z",
            "2026-01-01T00:00:00+14:00",
        )
        return self._rng.choice(odd) if self._rng.random() < 0.02 else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class _Fixed(Collector):
    """Families that are there already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


_STATES_OF_CONTAINERS: Final[tuple[Callable[[str], Object], ...]] = (
    lambda _time: {},
    lambda time: {"running": {"startedAt": time}},
    lambda _time: {"waiting": {"reason": "ImagePullBackOff", "message": "\x1b[31mno\u202e"}},
    lambda time: {"terminated": {"exitCode": 1, "finishedAt": time}},
    lambda _time: {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
)


def _check_plan(run: AlignmentRun, decided: Plan) -> None:
    """What is decided can be stored, read again and shown."""
    text = decided.status.to_json()
    again = AlignmentRun.model_validate({**run.model_dump(by_alias=True), "status": json.loads(text)})
    assert again.status == decided.status, "the status is not what is read of it"  # noqa: S101
    assert len(decided.create) <= 1, "two Jobs at once"  # noqa: S101
    for event in decided.events:
        assert event.reason, "an event without a reason"  # noqa: S101
        assert not has_hidden(event.message), f"an event is not fit for a terminal: {event.message!r}"  # noqa: S101
    for condition in decided.status.conditions:
        assert not has_hidden(condition.message), f"a condition is not: {condition.message!r}"  # noqa: S101


def _a_spec(rng: random.Random) -> Object:
    return {
        "model": {"uri": "bundled://smollm2-135m-instruct"},
        **({"objective": {"configMapRef": {"name": "mine"}}} if rng.random() < 0.3 else {}),
        "iterations": rng.choice((1, 2, 3, 1000)),
        "generation": {"shards": rng.choice((1, 1, 2, 7))},
        "rollout": rng.choice(("Auto", "Fused", "Separate")),
        "prompts": {"refresh": rng.choice(("Once", "EveryIteration"))},
        "evaluation": {"every": rng.choice((1, 2, 5)), "onRegression": rng.choice(("Continue", "Stop", "Rollback"))},
        "policy": {
            "retries": rng.choice((0, 1, 100)),
            **{
                name: rng.choice(("1s", "15m", "72h", "24855d", "9999999999d"))
                for name in ("deadline", "stallTimeout", "pendingTimeout", "ttlAfterFinished")
            },
        },
        "suspend": rng.random() < 0.1,
    }


def _edit(rng: random.Random, node: Any) -> None:
    """An odd value somewhere in a status or a spec, or a field less, or one stage's entry in the place of another's."""
    places = list(_places(node))
    if not places:
        return
    parent, key = rng.choice(places)
    match rng.randrange(4):
        case 0:
            del parent[key]
        case 1:
            other, other_key = rng.choice(places)
            try:
                parent[key] = json.loads(json.dumps(other[other_key]))
            except (KeyError, IndexError):
                return
        case 2 if isinstance(parent[key], str):
            parent[key] = rng.choice(
                (*map(str, Stage), "Running", "Failed", "Succeeded", "9999-12-31T23:59:59Z", *ODD_TEXTS)
            )
        case _:
            parent[key] = copy.deepcopy(rng.choice(_STORABLE))


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in list(items):
        yield node, key
        yield from _places(child)


def _edit_labels(rng: random.Random, stored: Object) -> None:
    """As `kubectl label` and `kubectl annotate` can: texts of any kind, or none."""
    metadata = stored["metadata"]
    field = rng.choice(("labels", "annotations"))
    texts = metadata.setdefault(field, {})
    if texts and rng.random() < 0.3:
        del texts[rng.choice(list(texts))]
    elif texts:
        texts[rng.choice(list(texts))] = rng.choice((*ODD_TEXTS, "0", "-1", "99999999999999999999", "judge"))
    else:
        del metadata[field]
    metadata.setdefault("labels", {})


def _message(rng: random.Random, *, good: bool) -> str | None:
    """A termination message: a result, or anything that a container can write."""
    match rng.randrange(12):
        case 0:
            return None
        case 1:
            return rng.choice(ODD_TEXTS)
        case 2:
            return json.dumps(rng.choice(ODD_VALUES))
    metrics = [
        {
            "name": rng.choice(("reward", "reward_std", "win_rate", "tokens", "regressed", rng.choice(ODD_TEXTS)[:64])),
            "value": _number(rng),
        }
        for _ in range(rng.randrange(5))
    ]
    result: Object = {"outcome": "Succeeded" if good else "Failed", "metrics": metrics, "seconds": _number(rng)}
    if good:
        result["artifact"] = {
            "path": rng.choice(("model", "x")),
            "digest": "sha256:" + "0" * 64,
            "rows": rng.choice((0, 1, 2**63, 10**30)),
        }
    else:
        result["error"] = {"reason": rng.choice(("BadInput", "CorruptArtifact", "")), "message": rng.choice(ODD_TEXTS)}
    text = json.dumps(result)
    return text[: rng.randrange(len(text))] if rng.random() < 0.05 else text


def _number(rng: random.Random) -> float:
    return rng.choice((0.0, 1.0, -1.0, 0.5, 1e308, -1e308, 5e-324, rng.random(), rng.random() * 1e6))


def _junk_exposition(rng: random.Random) -> str:
    """What anything else that listens on a pod's port may answer."""
    name = rng.choice(
        ("dynalign_stage_done", "dynalign_stage_metric", "dynalign_stage_metric{name=1}", "x", *ODD_TEXTS)
    )
    label = rng.choice(
        ("", "{}", '{name="a"}', '{other="a"}', '{name="\\ud800"}', "{name=", '{name="' + "a" * 300 + '"}')
    )
    line = f"{name}{label} {rng.choice(('1', 'NaN', '-Inf', '1e999', '', 'x', '1 2 3', *ODD_TEXTS))}\n"
    return rng.choice(("", "# HELP x\n", "# TYPE dynalign_stage_done histogram\n", "# EOF\n")) + line * rng.choice(
        (1, 2)
    )


def _exposition(rng: random.Random) -> str:
    """What a stage's /metrics answers, as far as it can be read at all."""
    lines = [
        f"dynalign_stage_done {_number(rng)}",
        f"dynalign_stage_total {rng.choice((0.0, 1.0, -1.0, 1e308))}",
        f"dynalign_stage_tokens_per_second {_number(rng)}",
        f'dynalign_stage_metric{{name="reward"}} {rng.choice(("NaN", "+Inf", "-Inf", "1e400", "0"))}',
    ]
    rng.shuffle(lines)
    return "\n".join(lines[: rng.randrange(5)]) + "\n"
