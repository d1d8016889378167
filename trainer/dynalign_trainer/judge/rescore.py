"""`python -m dynalign_trainer.judge.rescore`: have a run's judges score some recorded candidates again.

Reads a RescoreOrder from standard input, writes a RescoreReport to standard output and everything else to standard
error. Exit code 0 whatever was found. The judges are opened, and asked, as the judge stage does it.
"""

import os
import random
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from dynalign_contract.config import JudgeParams
from dynalign_contract.console import configure_logging
from dynalign_contract.errors import StageError
from dynalign_contract.layout import RunLayout
from dynalign_contract.manifest import artifact_folders, verify_artifact
from dynalign_contract.records import JUDGEMENT, JudgementRow, read_parts
from dynalign_contract.rescore import JudgedArtifact, RescoreOrder, RescoreReport
from dynalign_trainer.endpoints.endpoint_model import EndpointModel
from dynalign_trainer.judge.comparing import Rescored, compare_panel, compare_single, largest_difference, tolerance_of
from dynalign_trainer.judge.groups import RolloutGroup, candidates_of, read_groups
from dynalign_trainer.judge.judges import open_judges
from dynalign_trainer.judge.panel.members import Member, Panel
from dynalign_trainer.models.chat_model import ChatModel
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.telemetry import Telemetry
from dynalign_trainer.scoring.pointwise import PointwiseJudge

Key = tuple[str, int]
"""(prompt_id, candidate)."""


def main() -> None:
    """Answer one order."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print what they like
    configure_logging()
    report = rescore(RescoreOrder.model_validate_json(sys.stdin.buffer.read()))
    answers.write(f"{report.to_json()}\n")
    answers.flush()


def rescore(order: RescoreOrder) -> RescoreReport:
    """Score a sample of an iteration's candidates again, and compare. One engine is all that a process may start."""
    found: list[Rescored] = []
    refused: list[str] = []
    try:
        found.extend(_rescore_artifact(Path(order.root), order.judged, order.tolerance, refused))
    except StageError as error:
        refused.append(f"{order.judged.artifact.path}: {error}")
    return RescoreReport(
        rescored=len({one.key for one in found}),
        largest=largest_difference(found),
        differences=tuple(difference for one in found for difference in one.differences),
        refused=tuple(refused),
    )


def sample(keys: Sequence[Key], count: int, seed: str) -> set[Key]:
    """So many of these keys, the same ones for the same seed."""
    return set(random.Random(seed).sample(sorted(keys), min(count, len(keys))))  # noqa: S311 - no secret


def _rescore_artifact(
    root: Path, judged: JudgedArtifact, tolerance: float | None, refused: list[str]
) -> Iterator[Rescored]:
    """Comparisons of one iteration's sample. Raises StageError where its inputs or its judge are not to be had."""
    recorded = {_key(row): row for row in read_parts(artifact_folders(root, judged.artifact), JUDGEMENT)}
    keys = sample(list(recorded), judged.candidates, judged.artifact.digest)
    with tempfile.TemporaryDirectory(prefix="dynalign-rescore-") as folder:
        context = _open_context(root, judged, Path(folder))
        groups = _only(read_groups(context), keys)
        if context.params.judging.judges:
            yield from _ask_panel(context, groups, recorded, tolerance, refused)
        else:
            yield from _ask_single(context, groups, recorded, tolerance, refused)


def _open_context(root: Path, judged: JudgedArtifact, folder: Path) -> StageContext[JudgeParams]:
    """The stage's context, with verified inputs, a folder that nobody keeps, and one engine for the few candidates."""
    engine = judged.config.engine.model_copy(update={"replicas": 1})
    config = judged.config.model_copy(update={"engine": engine})
    return StageContext(
        config=config,
        params=cast("JudgeParams", config.params),
        layout=RunLayout(root),
        folder=folder,
        shard=0,
        inputs={name: verify_artifact(root, artifact) for name, artifact in config.inputs.items()},
        telemetry=Telemetry(),
        stopping=threading.Event(),
    )


def _only(groups: Sequence[RolloutGroup], keys: set[Key]) -> list[RolloutGroup]:
    """The groups with these candidates only, and without groups that have none of them."""
    found = []
    for group in groups:
        rows = [row for row in group.candidates if (row["prompt_id"], row["candidate"]) in keys]
        if rows:
            found.append(RolloutGroup(group.prompt_id, group.messages, rows))
    return found


def _ask_single(
    context: StageContext[JudgeParams],
    groups: Sequence[RolloutGroup],
    recorded: Mapping[Key, JudgementRow],
    tolerance: float | None,
    refused: list[str],
) -> Iterator[Rescored]:
    """Ask the judge that each judgement names: the configured one, or the base model that took its place."""
    params = context.params
    judges = open_judges(context)
    models = {judge.version: judge for judge in (judges.base, judges.configured)}
    named = {recorded[row["prompt_id"], row["candidate"]]["judge"] for group in groups for row in group.candidates}
    refused += [
        f"iteration {context.iteration}: judgements name the judge {name}, and the stage's configuration only "
        f"{' and '.join(sorted(models))}"
        for name in sorted(named - models.keys())
    ]
    for model in (models[name] for name in sorted(named & models.keys())):
        mine = _only(groups, {key for key, row in recorded.items() if row["judge"] == model.version})
        rollouts = [row for group in mine for row in group.candidates]
        scores = PointwiseJudge(model, params.objective, params.judging, seed=context.seed).score(candidates_of(mine))
        for rollout, score in zip(rollouts, scores, strict=True):
            row = recorded[rollout["prompt_id"], rollout["candidate"]]
            allowed = tolerance_of(params.judging, tolerance, is_outside=False)
            yield compare_single(
                params, context.iteration, rollout=rollout, recorded=row, score=score, tolerance=allowed
            )


def _ask_panel(
    context: StageContext[JudgeParams],
    groups: Sequence[RolloutGroup],
    recorded: Mapping[Key, JudgementRow],
    tolerance: float | None,
    refused: list[str],
) -> Iterator[Rescored]:
    """Ask every judge of the panel; one behind a server that cannot be asked is refused, and the others go on."""
    members = Panel(context).members()
    while True:
        try:
            member = next(members, None)
            if member is None:
                return
            rewards = _rewards(context, member, groups)
        except StageError as error:
            refused.append(f"iteration {context.iteration}: {error}")
            continue
        allowed = tolerance_of(context.params.judging, tolerance, is_outside=member.is_outside)
        for key, reward in rewards.items():
            yield compare_panel(
                context.iteration, judge=member.name, recorded=recorded[key], reward=reward, tolerance=allowed
            )


def _rewards(context: StageContext[JudgeParams], member: Member, groups: Sequence[RolloutGroup]) -> dict[Key, float]:
    model: ChatModel = member.model
    if isinstance(model, EndpointModel):
        model.endpoint.patience = 0  # one answer that is missing is no difference of scores, so it may not pass as one
    settings = context.params.judging.of(member.settings)
    judge = PointwiseJudge(model, context.params.objective, settings, seed=context.seed)
    keys = [(row["prompt_id"], row["candidate"]) for group in groups for row in group.candidates]
    return {key: score.reward for key, score in zip(keys, judge.score(candidates_of(groups)), strict=True)}


def _key(row: JudgementRow) -> Key:
    return row["prompt_id"], row["candidate"]


if __name__ == "__main__":
    main()
