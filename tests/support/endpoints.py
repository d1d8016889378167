"""Endpoints of tests: they wait milliseconds between their tries."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynalign_contract.agents import Role, agent_endpoint
from dynalign_contract.endpoints import EndpointSettings
from dynalign_trainer.endpoints.backoff import Backoff
from dynalign_trainer.endpoints.client import Endpoint, open_endpoint
from dynalign_trainer.endpoints.journal import Journal


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
