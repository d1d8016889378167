"""The connection of a person's command line: kubeconfig, context and namespace, chosen as kubectl chooses them."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from kubernetes.aio import client, config

from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.kubernetes.api import KubeApi, RefusedError, connect
from dynalign_operator.clusters.run_source import NoClusterError, NotAllowedError, UnreachableError

_DEFAULT: Final = Path("~/.kube/config")
_IN_POD: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_UNREADABLE: Final = (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError)
"""What kubernetes.aio raises for a file that is no kubeconfig."""


@dataclass(frozen=True)
class KubeChoice:
    """What the user has chosen on the command line; None leaves it to the kubeconfig."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: Path | None = None


@dataclass(frozen=True)
class UserAccess:
    """An open connection with the user's own rights."""

    api: KubeApi
    context: str
    """Name of the context; empty in a pod."""
    namespace: str
    """The one chosen, else the context's, else `default`."""


def find_kubeconfig(choice: KubeChoice, environment: Mapping[str, str]) -> str | None:
    """The file, or several files as `KUBECONFIG` separates them; None where there is none.

    Raises NoClusterError for a file that was named and does not exist.
    """
    if choice.kubeconfig is not None:
        if not choice.kubeconfig.is_file():
            raise NoClusterError(f"--kubeconfig names {choice.kubeconfig}, which does not exist.")
        return str(choice.kubeconfig)
    if named := environment.get("KUBECONFIG", ""):
        if not any(Path(path).expanduser().is_file() for path in named.split(os.pathsep) if path):
            raise NoClusterError(f"KUBECONFIG names {named}, which does not exist.")
        return named
    default = _DEFAULT.expanduser()
    return str(default) if default.is_file() else None


@asynccontextmanager
async def open_user_api(choice: KubeChoice) -> AsyncIterator[UserAccess]:
    """Connect as kubectl would. Raises NoClusterError."""
    found = find_kubeconfig(choice, os.environ)
    settings = client.Configuration()
    if found is not None:
        context, namespace = _read_context(found, choice)
        try:
            await config.load_kube_config(config_file=found, context=context, client_configuration=settings)
        except _UNREADABLE as error:
            raise NoClusterError(f"the kubeconfig {found} cannot be used: {error}") from error
    elif "KUBERNETES_SERVICE_HOST" in os.environ:
        config.load_incluster_config(client_configuration=settings)
        context, namespace = "", _IN_POD.read_text().strip() if _IN_POD.is_file() else "default"
    else:
        raise NoClusterError(
            f"there is no kubeconfig: {_DEFAULT} does not exist. Name one with --kubeconfig or KUBECONFIG, as for "
            "kubectl."
        )
    async with connect(settings) as api:
        yield UserAccess(api, context, choice.namespace or namespace)


def _read_context(kubeconfig: str, choice: KubeChoice) -> tuple[str, str]:
    """Name and namespace of the chosen context. Raises NoClusterError.

    Of several files the first that names a context, or the current one, counts, as kubectl has it.
    """
    contexts: dict[str, Any] = {}
    current = ""
    try:
        for path in filter(None, kubeconfig.split(os.pathsep)):
            file = Path(path).expanduser()
            data = (yaml.safe_load(file.read_text()) or {}) if file.is_file() else {}
            contexts = {c["name"]: c["context"] or {} for c in data.get("contexts") or ()} | contexts
            current = current or str(data.get("current-context") or "")
    except _UNREADABLE as error:
        raise NoClusterError(f"the kubeconfig {kubeconfig} cannot be read: {error}") from error
    name = choice.context or current
    known = ", ".join(sorted(map(str, contexts))) or "none"
    if not name:
        raise NoClusterError(f"{kubeconfig} has no current context; choose one with --context: it has {known}.")
    if name not in contexts:
        raise NoClusterError(f"{kubeconfig} has no context {name}; it has {known}.")
    return name, str(contexts[name].get("namespace") or "default")


def explain_refusal(error: RefusedError, access: UserAccess, verb: str) -> ClusterError:
    """A refusal in plain words; `verb` says what was tried, such as `list alignmentruns in namespace ml`."""
    cluster = f"the cluster of context {access.context}" if access.context else "the cluster"
    said = f"{error.message.rstrip('.')}."
    match error.status:
        case 403:
            return NotAllowedError(
                f"you may not {verb} ({cluster}): {said} Ask an administrator for the rights that docs/terminal.md "
                "lists."
            )
        case 401:
            return NotAllowedError(f"{cluster} does not accept your credentials: log in again. {said}")
        case 0:
            return UnreachableError(f"{cluster} does not answer: {said}")
        case 429 | 500 | 502 | 503 | 504:
            return UnreachableError(f"{cluster} cannot {verb} at present ({error.status}): {said}")
        case _:
            return ClusterError(f"{cluster} refused to {verb} ({error.status}): {said}")
