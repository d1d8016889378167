"""AlignmentRuns on a real cluster, as a user drives and looks at them: kubectl, pods, what lies on the volume."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from dynalign_contract.layout import stage_folder
from dynalign_contract.stages import SIDE_STAGES, Stage
from lab.cluster import Cluster, Image, install_operator, own_namespace
from lab.cluster_reads import Object, list_events, list_jobs, list_pods, read_run
from lab.processes import free_port, running
from lab.testbed import Testbed
from support.reward_servers import EXAMPLE

PATIENCE = 900.0
"""Seconds for a step of a run with real engines on a machine that others use too."""
OPERATOR = "app.kubernetes.io/instance=dynalign"
"""Selects the operator's pod."""
_CLAIM = "weights"
_REWARDS = "rewards"
_REWARDS_PORT = 8000
REWARDS_URL = f"http://{_REWARDS}:{_REWARDS_PORT}/score"
"""Where pods of the namespace reach the example server of rewards. `place_reward_server` starts it."""
_LOOK_EVERY = 0.5

HAS_GPUS = os.environ.get("DYNALIGN_TEST_GPUS") == "yes"
"""The nodes have GPUs, and the trainer's image is that for GPUs: engines and training get as many as they take."""
GPU = "nvidia.com/gpu"
NO_GPU: Object = {"resources": {"limits": {GPU: "0"}}}
ON_CPU: Object = {str(stage): NO_GPU for stage in Stage if stage not in (Stage.FETCH, Stage.EXPORT)}

TINY: Mapping[str, Any] = {
    "model": {"uri": f"pvc://{_CLAIM}/testbed"},
    "objective": {"configMapRef": {"name": "testbed"}},
    "iterations": 2,
    "engine": {"maxLength": 512},
    "prompts": {"perIteration": 4, "heldOut": 4, "maxTokens": 96, "minCharacters": 10, "dedup": {"threshold": 1.0}},
    "generation": {"candidates": 4, "maxTokens": 48, "promptsPerPart": 1},
    "judging": {"canaries": {"prompts": 2}},
    "training": {
        "learningRate": 1e-3,
        "lora": {"rank": 8},
        "promptsPerStep": 1,
        "checkpointSteps": 1,
        "gpusPerNode": 1,
        "gradientCheckpointing": False,
    },
    "evaluation": {"winRate": {"method": "Pointwise", "tieMargin": 0.02}},
    "storage": {"size": "1Gi"},
    "rollout": "Separate",
    "stages": ON_CPU,
}
"""The test-bed's model, its own objective, a minute or two an iteration. `place_testbed` puts both into a namespace."""


_NO_SIDE_STAGE: Final = f"dynalign.io/stage notin ({','.join(sorted(SIDE_STAGES))})"
"""Selects what belongs to the sequence of stages: a report is written beside it, as often as it has to be."""


@dataclass(frozen=True)
class Site:
    """A namespace that enforces restricted Pod Security, with an operator of its own."""

    cluster: Cluster
    namespace: str
    trainer: Image

    def kubectl(self, *arguments: str, manifest: object = None) -> str:
        """Run kubectl in this namespace; raises LabError with what it said."""
        return self.cluster.kubectl("-n", self.namespace, *arguments, manifest=manifest)

    def pods(self, selector: str) -> list[Object]:
        """The pods with these labels."""
        return list_pods(self.cluster, self.namespace, selector)

    def events(self) -> list[Object]:
        """All events."""
        return list_events(self.cluster, self.namespace)

    def apply(self, name: str, spec: Mapping[str, Any]) -> "ClusterRun":
        """`kubectl apply -f -` of a run."""
        run = {"apiVersion": "dynalign.io/v1alpha1", "kind": "AlignmentRun", "metadata": {"name": name}, "spec": spec}
        self.kubectl("apply", "-f-", manifest=run)
        return ClusterRun(self, name)

    @contextmanager
    def forward(self, folder: Path, target: str, port: int) -> Iterator[int]:
        """`kubectl port-forward` to a port of a Service or pod; gives the loopback port. The log goes to the folder."""
        local = free_port()
        command = self.cluster.command("-n", self.namespace, "port-forward", target, f"{local}:{port}")
        with running(folder, command, "port-forward"):
            yield local

    def run_pod(self, name: str, script: str, claim: str) -> str:
        """Run Python in a pod of the trainer image, the claim read-only at /volume; returns what it printed."""
        self.kubectl("create", "-f-", manifest=a_pod(name, ["python", "-c", script], self.trainer.reference, claim))
        try:
            until(
                lambda: self.kubectl("get", "pod", name, "-o", "jsonpath={.status.phase}") in ("Succeeded", "Failed"),
                f"the end of pod {name}",
                lambda: self.kubectl("describe", "pod", name),
            )
            said = self.kubectl("logs", name)
            phase = self.kubectl("get", "pod", name, "-o", "jsonpath={.status.phase}")
            assert phase == "Succeeded", f"pod {name} is {phase}: {said}"
            return said
        finally:
            self.kubectl("delete", "pod", name, "--wait=false")


@dataclass(frozen=True)
class ClusterRun:
    """A run in a Site."""

    site: Site
    name: str

    @property
    def status(self) -> Object:
        """Its status; empty before the operator has seen it."""
        found: Object = read_run(self.site.cluster, self.site.namespace, self.name).get("status") or {}
        return found

    def condition(self, kind: str) -> Object:
        """One of its conditions; empty while it is not there."""
        return next((c for c in self.status.get("conditions", ()) if c["type"] == kind), {})

    @property
    def is_completed(self) -> bool:
        """Whether `kubectl wait --for=condition=Completed` would end."""
        return self.condition("Completed").get("status") == "True"

    def jobs(self) -> list[Object]:
        """Its Jobs, those of side stages aside."""
        return list_jobs(self.site.cluster, self.site.namespace, f"dynalign.io/run={self.name},{_NO_SIDE_STAGE}")

    def pods(self, stage: Stage | None = None) -> list[Object]:
        """Its pods, those of side stages aside, or those of one stage."""
        return self.site.pods(
            f"dynalign.io/run={self.name}," + (f"dynalign.io/stage={stage}" if stage else _NO_SIDE_STAGE)
        )

    def running(self, stage: Stage) -> list[Object]:
        """The pods of a stage whose container runs."""
        return [pod for pod in self.pods(stage) if pod["status"].get("phase") == "Running"]

    def all_pods(self) -> list[Object]:
        """Its pods, those of side stages among them."""
        return self.site.pods(f"dynalign.io/run={self.name}")

    def stages(self) -> set[str]:
        """The stages that have a pod, side stages among them."""
        return {pod["metadata"]["labels"]["dynalign.io/stage"] for pod in self.all_pods()}

    def patch(self, **spec: Any) -> None:
        """`kubectl patch` of its specification."""
        self.site.kubectl("patch", "ar", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def until(self, is_reached: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Wait; a run that fails on the way fails the test with all that helps to find out why."""

        def reached() -> object:
            if found := is_reached():
                return found
            assert self.status.get("phase") != "Failed", f"the run failed before {what}:\n{self.explain()}"
            return None

        until(reached, what, self.explain, patience)

    def until_completed(self) -> None:
        """Wait for the run's end."""
        self.until(lambda: self.is_completed, "completion", 2 * PATIENCE)

    def until_reported(self) -> None:
        """Wait for the report of the run to its end, which comes after the run's completion."""
        self.until(lambda: self.status.get("report", {}).get("phase") == "Succeeded", "the report of the run's end")

    def explain(self) -> str:
        """What a person would look at first."""
        logs = (
            ["-n", self.site.namespace, "logs", f"-ljob-name={j['metadata']['name']}", "--tail=25"]
            for j in self.jobs()[-1:]
        )
        return "\n".join(
            [
                json.dumps({k: v for k, v in self.status.items() if k != "iterations"}, indent=1),
                self.site.kubectl("get", "pods,jobs", "-o", "wide"),
                self.site.kubectl("get", "events", "--sort-by=.lastTimestamp"),
                *map(self._try_kubectl, logs),
                self._try_kubectl(["-n", self.site.namespace, "logs", "deployment/dynalign", "--tail=40"]),
            ]
        )

    def _try_kubectl(self, arguments: list[str]) -> str:
        try:
            return self.site.cluster.kubectl(*arguments)
        except Exception as error:  # noqa: BLE001 - it explains another failure
            return str(error)

    def artifacts(self) -> dict[str, Any]:
        """What every manifest on the volume says of its files, by folder; side stages aside."""
        script = (
            "import json, pathlib\n"
            f"root = pathlib.Path('/volume/{self.name}')\n"
            "read = lambda path: json.loads(path.read_text())\n"
            "print(json.dumps({str(p.parent.relative_to(root)): [read(p)['configDigest'], read(p)['files']]\n"
            "                  for p in sorted(root.rglob('manifest.json'))}))"
        )
        found: dict[str, Any] = json.loads(self.site.run_pod(f"{self.name}-artifacts", script, self.name))
        return {folder: said for folder, said in found.items() if folder not in map(stage_folder, SIDE_STAGES)}


def until(is_reached: Callable[[], object], what: str, explain: Callable[[], str], patience: float = PATIENCE) -> None:
    """Look again and again."""
    end = time.monotonic() + patience
    while not is_reached():
        assert time.monotonic() < end, f"{what} did not come within {patience:.0f} s:\n{explain()}"
        time.sleep(_LOOK_EVERY)


@contextmanager
def open_site(
    cluster: Cluster,
    operator: Image,
    trainer: Image,
    prefix: str = "e2e",
    *,
    first: Iterable[Object] = (),
    values: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Site]:
    """A Site that goes with all that is in it, while the next test begins.

    `first` are objects that are in the namespace before the operator comes, and `values` those of its chart.
    """
    with own_namespace(cluster, prefix, awaits_end=False) as namespace:
        for manifest in first:
            cluster.kubectl("-n", namespace, "create", "-f-", manifest=manifest)
        install_operator(cluster, namespace, operator, trainer, release="dynalign", more=values)
        yield Site(cluster, namespace, trainer)


def place_testbed(site: Site, testbed: Testbed) -> None:
    """Put the test-bed's model on a claim of the user's own, and its objective into a ConfigMap."""
    site.kubectl("create", "configmap", "testbed", f"--from-file=objective.yaml={testbed.objective}")
    claim: Object = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": _CLAIM},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "100Mi"}}},
    }
    site.kubectl("create", "-f-", manifest=claim)
    pod = a_pod("loader", ["sleep", "3600"], site.trainer.reference, _CLAIM, read_only=False)
    site.kubectl("create", "-f-", manifest=pod)
    site.kubectl("wait", "pod/loader", "--for=condition=Ready", "--timeout=300s")
    _copy(site, testbed.model, "/volume/testbed")
    site.kubectl("delete", "pod", "loader", "--grace-period=0", "--force")


def _copy(site: Site, folder: Path, target: str) -> None:
    site.kubectl("exec", "loader", "--", "mkdir", "-p", target)
    packed = subprocess.run(["tar", "-C", str(folder), "-c", "."], capture_output=True, check=True).stdout
    site.cluster.pipe(packed, "kubectl", "-n", site.namespace, "exec", "-i", "loader", "--", "tar", "-C", target, "-x")


def place_reward_server(site: Site) -> None:
    """Run the example server of rewards behind the Service of `REWARDS_URL`."""
    command = ["python", "-c", EXAMPLE.read_text(), str(_REWARDS_PORT)]
    pod = a_pod(_REWARDS, command, site.trainer.reference)
    pod["metadata"]["labels"] = {"app": _REWARDS}
    service: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": _REWARDS},
        "spec": {"selector": {"app": _REWARDS}, "ports": [{"port": _REWARDS_PORT}]},
    }
    site.kubectl("create", "-f-", manifest=pod)
    site.kubectl("create", "-f-", manifest=service)
    site.kubectl("wait", f"pod/{_REWARDS}", "--for=condition=Ready", "--timeout=300s")


def a_pod(name: str, command: list[str], image: str, claim: str | None = None, *, read_only: bool = True) -> Object:
    """A pod as manifests.pod builds them: uid 1000, read-only root, no token, no capabilities; a claim at /volume."""
    volumes: list[Object] = [{"name": "tmp", "emptyDir": {}}]
    mounts: list[Object] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - a mount in the pod
    if claim is not None:
        volumes.append({"name": "volume", "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": "volume", "mountPath": "/volume", "readOnly": read_only})
    container = {
        "name": "main",
        "image": image,
        "command": command,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": volumes,
        },
    }


def violations(pods: Iterable[Object]) -> list[str]:
    """Where live pods are not what is promised: restricted, a read-only root, no token."""
    found = []
    for pod in pods:
        name, spec = pod["metadata"]["name"], pod["spec"]
        if spec.get("automountServiceAccountToken") is not False:
            found.append(f"{name} mounts a token")
        if any("projected" in volume for volume in spec["volumes"]):
            found.append(f"{name} has a projected volume")
        if not spec["securityContext"].get("runAsNonRoot"):
            found.append(f"{name} may be root")
        found += [
            f"{name} can write its root"
            for container in spec["containers"]
            if not container["securityContext"].get("readOnlyRootFilesystem")
        ]
    return found
