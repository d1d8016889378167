"""Which requests take a proxy. Those to this very machine never do."""

from collections.abc import Mapping
from typing import Final

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
"""This machine, as addresses name it."""
CLUSTER: Final = (*LOOPBACK, ".svc", ".cluster.local")
"""What a pod reaches without a proxy: itself, and the Services of its cluster."""

PROXY_VARIABLES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
NO_PROXY: Final = "NO_PROXY"


def both_cases(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables under their names in capitals and in small letters: some libraries read the one, some the other."""
    return {**variables, **{name.lower(): value for name, value in variables.items()}}


def joined_hosts(*lists: str) -> str:
    """Comma-separated lists of hosts as one, each host once."""
    hosts = (host.strip() for text in lists for host in text.split(","))
    return ",".join(dict.fromkeys(host for host in hosts if host))


def direct_to_this_machine(environment: Mapping[str, str]) -> dict[str, str]:
    """The `NO_PROXY` of an environment, in both spellings, with this machine in it."""
    present = (environment.get(NO_PROXY, ""), environment.get(NO_PROXY.lower(), ""))
    return both_cases({NO_PROXY: joined_hosts(*present, ",".join(LOOPBACK))})
