"""`dynalign verify --rescore`: has the stages' code, in a process of its own, judge some recorded candidates again."""

import random
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dynalign_contract.rescore import JudgedArtifact, RescoreOrder, RescoreReport, ScoreDifference
from dynalign_operator.cli.installed import HOW_TO_ADD
from dynalign_operator.cli.terminal import count_of

if TYPE_CHECKING:
    from dynalign_operator.provenance.lineage import Lineage, Link

_COMMAND: Final = (sys.executable, "-m", "dynalign_trainer.judge.rescore")
_NEEDED: Final = ("dynalign_trainer", "torch", "transformers")
_LAST_LINES: Final = 3
"""Lines of the process's own last words in an error."""


def rescore(folder: Path, lineage: "Lineage", count: int, tolerance: float | None) -> RescoreReport:
    """Have `count` recorded candidates of a run scored again, spread over its iterations by their sizes."""
    from dynalign_contract.stages import Stage

    links = [link for link in lineage.links if link.step.stage is Stage.JUDGE]
    if not links:
        return _refuse("the run has no judgements that its status records, so none can be scored again")
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        return _refuse(
            f"no candidate was scored again, for {missing[0]} is not installed here; to add the stages: {HOW_TO_ADD}"
        )
    orders, refused = _orders(folder, links, count, tolerance)
    reports = [_ask(order) for order in orders]
    return RescoreReport(
        rescored=sum(report.rescored for report in reports),
        largest=max((report.largest for report in reports if report.largest is not None), default=None),
        differences=tuple(difference for report in reports for difference in report.differences),
        refused=(*refused, *(text for report in reports for text in report.refused)),
    )


def problems_of(report: RescoreReport) -> list[str]:
    """What a person should know to be wrong, as sentences without a dot: one for each differing candidate."""
    found: dict[tuple[int, str, int], list[ScoreDifference]] = {}
    for one in report.differences:
        found.setdefault((one.iteration, one.prompt_id, one.candidate), []).append(one)
    told = [
        f"iteration {iteration}, prompt {prompt}, candidate {candidate}: {', '.join(map(_tell, differences))}"
        for (iteration, prompt, candidate), differences in found.items()
    ]
    return [*told, *(text.rstrip(".") for text in report.refused)]


def summary_of(report: RescoreReport) -> str:
    """How many candidates were scored again, and how far the scores were apart."""
    if report.largest is None:
        return f"{count_of(report.rescored, 'candidate')} scored again."
    return (
        f"{count_of(report.rescored, 'candidate')} scored again by the recorded judge; the largest difference is "
        f"{report.largest:.3f} of 9 points."
    )


def _orders(
    folder: Path, links: "Sequence[Link]", count: int, tolerance: float | None
) -> tuple[list[RescoreOrder], list[str]]:
    """Which artifact gives how many candidates, and which ones cannot give any."""
    refused = [
        f"{link.artifact.path}: the configuration that it was made from is not at hand, so its judge is not known"
        for link in links
        if link.config is None
    ]
    shares = _shares([link.artifact.rows for link in links], count, "".join(link.artifact.digest for link in links))
    root = str(folder.resolve())
    orders = [
        RescoreOrder(
            root=root,
            judged=JudgedArtifact(config=link.config, artifact=link.artifact, candidates=share),
            tolerance=tolerance,
        )
        for link, share in zip(links, shares, strict=True)
        if link.config is not None and share
    ]
    return orders, refused


def _shares(sizes: Sequence[int], count: int, seed: str) -> list[int]:
    """How many of `count` fall on each artifact, drawn by their sizes and always alike for the same seed."""
    owners = [index for index, size in enumerate(sizes) for _ in range(max(1, size))]
    drawn = random.Random(seed).sample(owners, min(count, len(owners)))  # noqa: S311 - no secret
    return [drawn.count(index) for index in range(len(sizes))]


def _ask(order: RescoreOrder) -> RescoreReport:
    from pydantic import ValidationError

    done = subprocess.run(_COMMAND, input=order.to_json().encode(), capture_output=True, check=False)
    try:
        return RescoreReport.model_validate_json(done.stdout)
    except ValidationError:
        last = " ".join(done.stderr.decode(errors="replace").splitlines()[-_LAST_LINES:])
        return _refuse(f"no candidate was scored again, for the process ended with exit code {done.returncode}: {last}")


def _refuse(sentence: str) -> RescoreReport:
    return RescoreReport(refused=(sentence,))


def _tell(one: ScoreDifference) -> str:
    recorded, rescored = _shown(one.recorded), _shown(one.rescored)
    return f"{one.what} is recorded as {recorded} and {one.judge} gives {rescored} (tolerance {one.tolerance:.3g})"


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
