"""Endpoints of tests: they wait milliseconds between their tries."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from dynalign_contract.agents import Role, agent_endpoint
from dynalign_contract.endpoints import EndpointSettings
from dynalign_contract.errors import StageError
from dynalign_trainer.endpoints.backoff import Backoff
from dynalign_trainer.endpoints.client import Endpoint, open_endpoint
from dynalign_trainer.endpoints.completions import ChatRequest
from dynalign_trainer.endpoints.journal import Journal

SECRET: Final = "sk-Very/secret+key=12345"  # noqa: S105 - made up


def quick_endpoint(
    url: str,
    environment: Mapping[str, str],
    *,
    role: Role = Role.AUTHOR,
    journal: Path | None = None,
    **settings: Any,
) -> Endpoint:
    """An agent's endpoint with these settings; without a `journal` it remembers nothing."""
    wanted = EndpointSettings(url=url, model="m", **settings)
    kept = Journal(Path(os.devnull) if journal is None else journal)
    opened = open_endpoint(agent_endpoint(role), wanted, environment, kept)
    opened.backoff = Backoff(first=0.002, most=0.01)
    return opened


def impatient_endpoint(url: str, environment: Mapping[str, str] | None = None, **settings: Any) -> Endpoint:
    """An author's endpoint that has the key `SECRET` and tries once."""
    found = {"DYNALIGN_AUTHOR_API_KEY": SECRET} | dict(environment or {})
    return quick_endpoint(url, found, **{"retries": 0, **settings})


def refused(url: str, environment: Mapping[str, str] | None = None, **settings: Any) -> StageError:
    """The error with which one request to such an endpoint ends."""
    with pytest.raises(StageError) as caught:
        impatient_endpoint(url, environment, **settings).complete([ChatRequest("Write.", 1.0, 1.0, 8, seed=1)])
    return caught.value
