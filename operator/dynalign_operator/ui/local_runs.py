"""Working folders of this machine: those named, those within folders named, or those in runs/."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dynalign_contract.layout import RunLayout
from dynalign_operator.cli.sample import sample_text
from dynalign_operator.cli.workdirs import RUNS
from dynalign_operator.clusters.local.remembered import RememberedRuns
from dynalign_operator.clusters.local.run_source import LocalRunSource
from dynalign_operator.clusters.run_source import RunList, RunSnapshot
from dynalign_operator.planning.run_facts import facts_of
from dynalign_operator.ui.approvals import awaited_of
from dynalign_operator.ui.models import ReportView
from dynalign_report.facts import StageFacts
from dynalign_report.stage_facts import read_stages

_RUN_FILE: Final = "run.json"


class LocalRuns:
    """The runs of some folders; new ones are found at every look. Reading happens in threads."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self._folders = tuple(folders) or (RUNS,)
        self._remembered = RememberedRuns()

    def find(self) -> dict[str, Path]:
        """Working folders by their names."""
        found: dict[str, Path] = {}
        for folder in self._folders:
            inside = [folder] if (folder / _RUN_FILE).is_file() else [p.parent for p in folder.glob(f"*/{_RUN_FILE}")]
            found |= {str(path): path for path in sorted(inside)}
        return found

    def source(self) -> LocalRunSource:
        """The folders as they are now."""
        return LocalRunSource(self.find())

    async def list_runs(self) -> RunList:
        """Every run of the folders."""
        source = LocalRunSource(self.find(), self._remembered.read)
        return await asyncio.to_thread(lambda: asyncio.run(source.list_runs()))

    async def stages(self, snapshot: RunSnapshot) -> tuple[tuple[StageFacts, ...], list[str]]:
        """What the stages have left in the folder, and what of it cannot be read."""
        return await asyncio.to_thread(read_stages, Path(snapshot.place.files), facts_of(snapshot.run))

    async def make_report(self, snapshot: RunSnapshot) -> Path:
        """Write the report into the folder. Raises OSError, ModuleNotFoundError without `dynalign[report]`."""
        from dynalign_operator.cli.report import make_report

        folder = Path(snapshot.place.files)
        file = RunLayout(folder).report
        await asyncio.to_thread(make_report, file, [(folder, snapshot.run)])
        return file


def report_view(snapshot: RunSnapshot) -> ReportView:
    """When the report of a working folder was made."""
    file = RunLayout(Path(snapshot.place.files)).report
    try:
        made = datetime.fromtimestamp(file.stat().st_mtime, UTC) if file.is_file() and not file.is_symlink() else None
    except OSError:
        made = None
    return ReportView(made_at=made, can_be_made=True)


def read_sample_text(snapshot: RunSnapshot) -> str:
    """A sample of what awaits approval, as `dynalign describe` shows it; empty where nothing does."""
    awaited = awaited_of(snapshot)
    return "" if awaited is None else sample_text(Path(snapshot.place.files), awaited)
