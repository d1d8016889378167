"""The judge stage with several judges: ask each, hold each to the gates, combine those that count."""

import shutil
import time
from collections.abc import Mapping, Sequence

from dynalign_contract.config import BASE_POLICY, JudgeParams
from dynalign_contract.layout import CANARIES_FILE
from dynalign_contract.metrics import JudgeMetrics
from dynalign_contract.records import CANARY, JUDGEMENT, JudgementRow, write_rows
from dynalign_trainer.endpoints.journal import JOURNAL_FILE
from dynalign_trainer.judge.groups import RolloutGroup
from dynalign_trainer.judge.panel.members import Panel
from dynalign_trainer.judge.panel.metrics import panel_metrics
from dynalign_trainer.judge.panel.opinions import OPINIONS_FOLDER, Opinions, PanelShard
from dynalign_trainer.judge.panel.questions import Key, Questions, keys_of, plan_questions
from dynalign_trainer.judge.panel.rows import canary_rows, judgement_rows
from dynalign_trainer.judge.panel.verdict import decide
from dynalign_trainer.judge.rewarding import score_rows
from dynalign_trainer.runtime.context import StageContext, StageOutput
from dynalign_trainer.runtime.parts import Part
from dynalign_trainer.verifiers.verifier import Verifier


def judge_by_panel(
    context: StageContext[JudgeParams],
    panel: Panel,
    parts: Sequence[Part[RolloutGroup]],
    leading: Sequence[RolloutGroup],
    verifiers: Sequence[Verifier],
) -> tuple[StageOutput[JudgeParams], list[JudgementRow]]:
    """Write this shard's judgements by several judges, and in shard 0 the canaries; the rows come back as well.

    `leading` are the groups of shard 0. What a judge has said is kept in `OPINIONS_FOLDER` until all of them are done:
    an interrupted stage goes on from there. Raises UnfitError as `verdict.decide` does.
    """
    params = context.params
    questions = plan_questions(context, parts, leading)
    shard = PanelShard(context, questions, total=_count(params, questions))
    started = time.monotonic()
    asked = {member.name: shard.ask(member) for member in panel.members()}
    opinions = {judge.name: asked[judge.name] for judge in params.judging.judges}
    _warn_of_budgets(context, opinions)
    verdict = decide(context, questions, opinions, _base_rewards(shard, panel, opinions))
    rows = {
        part.name: judgement_rows(params, verifiers, part.inputs, verdict.rule, opinions) for part in questions.parts
    }
    for name, found in rows.items():
        write_rows(context.folder / name, found, JUDGEMENT)
    files = {name: len(found) for name, found in rows.items()}
    if context.shard == 0:
        scores = {
            name: [score_rows(params.objective, score) for score in found.canaries] for name, found in opinions.items()
        }
        canaries = canary_rows(questions, verdict.rule, opinions, scores)
        write_rows(context.folder / CANARIES_FILE, canaries, CANARY)
        files[CANARIES_FILE] = len(canaries)
    every = [row for part in questions.parts for row in rows[part.name]]
    read = sum(member.model.usage.read for member in panel.opened)
    rate = {JudgeMetrics.tokens_per_second: read / max(time.monotonic() - started, 1e-9)}
    return StageOutput(files, {**panel_metrics(params, questions, opinions, verdict, every), **rate}), every


def clear_opinions(context: StageContext[JudgeParams]) -> None:
    """Remove what the judges' answers were kept in."""
    shutil.rmtree(context.folder / OPINIONS_FOLDER, ignore_errors=True)
    (context.folder / JOURNAL_FILE).unlink(missing_ok=True)


def _count(params: JudgeParams, questions: Questions) -> int:
    """Answers that are scored in all: by every judge, and by the base model where it is none of them."""
    is_asked_apart = all(policy.version != BASE_POLICY for policy in params.policies.values())
    apart = sum(len(group.candidates) for group in questions.compared) if is_asked_apart else 0
    return len(params.judging.judges) * questions.count + apart


def _warn_of_budgets(context: StageContext[JudgeParams], opinions: Mapping[str, Opinions]) -> None:
    for name, found in opinions.items():
        exhausted = found.member.model.exhausted_budget()
        if exhausted is not None:
            context.warn(f"the judge {name} was not asked for all answers: {exhausted}")


def _base_rewards(shard: PanelShard, panel: Panel, opinions: Mapping[str, Opinions]) -> dict[Key, float] | None:
    """The base model's rewards of the compared groups, from the judge that it is, or asked for.

    None where nothing is compared: without an engine, or where no judge is another model.
    """
    groups, members = shard.questions.compared, [found.member for found in opinions.values()]
    if not groups or panel.base is None or all(member.is_base for member in members):
        return None
    for found in opinions.values():
        if found.member.is_base:
            return {key: found.rewards[key] for group in groups for key in keys_of(group)}
    return shard.rewards(panel.base, shard.context.params.judging, groups)
