"""What the shell's completion offers for a run: names only, in two seconds at most, and never an error."""

import asyncio
import contextlib
from typing import Final

from dynalign_contract.plain_text import has_hidden
from dynalign_operator.cli.run_choice import RunChoice, is_plugin
from dynalign_operator.cli.workdirs import RUNS
from dynalign_operator.clusters.errors import ClusterError

_SECONDS: Final = 2.0


def run_names(incomplete: str) -> list[str]:
    """Working folders in runs/, and runs of the kubeconfig's namespace."""
    found = [] if is_plugin() else [path.parent.name for path in sorted(RUNS.glob("*/run.json"))]
    with contextlib.suppress(ClusterError, TimeoutError):
        found += asyncio.run(asyncio.wait_for(_names_in_cluster(), _SECONDS))
    return [name for name in dict.fromkeys(found) if name.startswith(incomplete) and not has_hidden(name)]


async def _names_in_cluster() -> list[str]:
    async with RunChoice(None).open_cluster() as source:
        return [run.name for run in (await source.list_runs()).runs]
