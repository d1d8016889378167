"""Commands of a Job's pods for this machine, with the pods' paths mapped to local folders."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dynalign_contract.pod_paths import CACHE_MOUNT, CONFIG_MOUNT, POD_ONLY, RUN_MOUNT, Variable
from dynalign_contract.preload import WORKDIR_VARIABLE
from dynalign_operator.clusters.errors import UnsupportedJobError
from dynalign_operator.clusters.local.workdir import Workdir
from dynalign_operator.manifests.labels import RUN
from dynalign_operator.manifests.objects import KubernetesObject
from dynalign_operator.manifests.pod import COMMAND
from dynalign_operator.manifests.secrets import may_hold_secret

STAGE_MODULE: Final = "dynalign_trainer.main"
"""What `dynalign-stage` runs."""

_REFERENCE: Final = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_DEFAULT_GRACE_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Placement:
    """Where this machine has what a pod would have mounted."""

    workdir: Workdir
    cache: Path
    environment: Mapping[str, str]
    """Environment of this process; the stages inherit it, secrets excepted."""


@dataclass(frozen=True)
class Command:
    """A process to start."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


def expand_references(text: str, variables: Mapping[str, str]) -> str:
    """Expand `$(NAME)` as the kubelet does: `$$` is a dollar sign, and an unknown name stays as it is written."""

    def replace(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def map_paths(text: str, folders: Mapping[str, Path]) -> str:
    """Replace the pod's folders by those of this machine, wherever a path begins in the text."""
    names = "|".join(re.escape(name) for name in sorted(folders, key=len, reverse=True))
    return re.sub(rf"(?<![\w./-])({names})(?=[/:,]|$)", lambda match: str(folders[match[1]]), text)


def build_command(job: KubernetesObject, index: int, port: int, placement: Placement) -> Command:
    """The command of one completion of a Job. Raises UnsupportedJobError for what one machine cannot do."""
    spec = job["spec"]
    if spec["parallelism"] > 1 and "successPolicy" in spec:
        raise UnsupportedJobError(
            f"Job {job['metadata']['name']} trains on {spec['completions']} nodes, and this is one machine. Set "
            "spec.training.nodes to 1, or apply the run to a cluster."
        )
    container = spec["template"]["spec"]["containers"][0]
    folders = _folders(job, index, placement)
    variables = _variables(container, port, folders, placement.environment)
    if spec.get("completionMode") == "Indexed":
        variables[Variable.COMPLETION_INDEX] = str(index)
    inherited = {name: value for name, value in placement.environment.items() if not may_hold_secret(name)}
    command = [map_paths(expand_references(text, variables), folders) for text in container["command"]]
    arguments = [map_paths(expand_references(text, variables), folders) for text in container.get("args", [])]
    if command == [COMMAND]:
        command = [sys.executable, "-m", STAGE_MODULE]
    mark = {WORKDIR_VARIABLE: str(placement.workdir.root)}
    return Command((*command, *arguments), {**inherited, **variables, **mark})


def grace_seconds(job: KubernetesObject) -> float:
    """Time between SIGTERM and SIGKILL."""
    return float(job["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", _DEFAULT_GRACE_SECONDS))


def restarts_per_index(job: KubernetesObject) -> int:
    """How often each completion may be restarted before the Job fails."""
    return int(job["spec"].get("backoffLimitPerIndex", 0))


def final_exit_codes(job: KubernetesObject) -> frozenset[int]:
    """Exit codes after which nothing is restarted."""
    rules = job["spec"].get("podFailurePolicy", {}).get("rules", [])
    return frozenset(code for rule in rules for code in rule.get("onExitCodes", {}).get("values", []))


def _folders(job: KubernetesObject, index: int, placement: Placement) -> dict[str, Path]:
    name, workdir = job["metadata"]["name"], placement.workdir
    container = job["spec"]["template"]["spec"]["containers"][0]
    run = job["metadata"]["labels"][RUN]
    return {
        f"{RUN_MOUNT}/{run}": workdir.root,
        CONFIG_MOUNT: workdir.job(name),
        CACHE_MOUNT: placement.cache,
        container["terminationMessagePath"]: workdir.result(name, index),
    }


def _variables(
    container: KubernetesObject, port: int, folders: Mapping[str, Path], inherited: Mapping[str, str]
) -> dict[str, str]:
    """The container's own environment. A value from a Secret comes from this process's variable of the same name."""
    variables: dict[str, str] = {}
    for entry in container.get("env", []):
        name = entry["name"]
        if name in POD_ONLY:
            continue
        if name == Variable.METRICS_PORT:
            variables[name] = str(port)
        elif "value" in entry:
            variables[name] = map_paths(expand_references(entry["value"], variables), folders)
        elif name in inherited:
            variables[name] = inherited[name]
    return variables
