"""Requests that the API server refuses: who can remove the cause, and what a run's status says about it."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.kubernetes.api import RefusedError
from dynalign_operator.clusters.kubernetes.cluster import ForeignObjectError
from dynalign_operator.planning import reasons
from dynalign_operator.planning.stored_run import Blocker

_PERMANENT_REFUSALS: Final = frozenset({400, 403, 413, 422})
"""HTTP statuses of refusals that stay until somebody acts: invalid, forbidden (quota, admission), too large."""
_LACKS_RIGHTS: Final = re.compile(r'User "[^"]*" cannot \w+ resource')
"""Wording of RBAC."""
_TOO_LARGE: Final = re.compile(r"request is too large|Request entity too large|larger than max", re.IGNORECASE)
"""Wording of etcd and the API server about an object beyond their limit, with HTTP status 413 or 500."""
_REMEDY_OF_SIZE: Final = (
    "The API server stores objects of at most about 1.5 MiB, specification and status together: shorten the "
    "specification (long lists, annotations, labels), or export the model and go on with a new run."
)


class Cause(StrEnum):
    """Who can remove the cause of a refusal."""

    USER = "User"
    """The run's author: a quota, an invalid object, a name in use."""
    ADMINISTRATOR = "Administrator"
    """The cluster's administrator: the operator's service account lacks a right."""
    PASSING = "Passing"
    """It passes by itself: the API server is unreachable, busy, or still deletes an object."""


@dataclass(frozen=True)
class Refusal:
    """What to do about a refused request."""

    cause: Cause
    blocker: Blocker | None
    """Content of the Stalled condition; None where the status keeps what it says."""
    obstacle: str = ""
    """Names what has to go before a retry makes sense; retries of the same obstacle are further and further apart."""


def classify_refusal(error: ClusterError) -> Refusal:
    """Sort an error of the API server by its cause."""
    text = str(error)
    if isinstance(error, ForeignObjectError):
        return Refusal(Cause.USER, Blocker(reasons.NAME_TAKEN, text), obstacle=text)
    if not isinstance(error, RefusedError):
        return Refusal(Cause.PASSING, Blocker(reasons.REFUSED, text))
    if _TOO_LARGE.search(text):
        return Refusal(Cause.USER, Blocker(reasons.REFUSED, f"{text} {_REMEDY_OF_SIZE}"))
    if error.status not in _PERMANENT_REFUSALS:
        return Refusal(Cause.PASSING, None)
    cause = Cause.ADMINISTRATOR if _LACKS_RIGHTS.search(text) else Cause.USER
    return Refusal(cause, Blocker(reasons.REFUSED, text))
