"""A shard of rollouts in front of a judge: its parts, the canaries, rewards by the base model too."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dynalign_contract.config import JudgeParams
from dynalign_contract.metrics import JudgeMetrics
from dynalign_contract.records import (
    CanaryRow,
    JudgementRow,
    RolloutRow,
)
from dynalign_contract.settings import OnUnfitJudge
from dynalign_trainer.judge.canaries import Canary, CanaryKind, make_canaries
from dynalign_trainer.judge.groups import RolloutGroup, as_canary_groups, candidates_of
from dynalign_trainer.judge.judges import Judges, is_base
from dynalign_trainer.judge.rewarding import Opinion, answer_of, build_judgement, score_rows
from dynalign_trainer.judge.trust import CanaryTrust, canary_trust
from dynalign_trainer.models.chat_model import ChatModel
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.parts import Part
from dynalign_trainer.runtime.progress import Watch, watch_progress
from dynalign_trainer.runtime.shared_parts import SharedParts, Task
from dynalign_trainer.scoring.contexts import Candidate
from dynalign_trainer.scoring.pointwise import CandidateScore, PointwiseJudge
from dynalign_trainer.scoring.scores import mean_of
from dynalign_trainer.verifiers.verifier import Verifier, verify, weights_of


@dataclass(frozen=True)
class JudgedShard:
    """One judge's results for a shard."""

    judge: ChatModel
    rows: dict[int, list[JudgementRow]]
    """Part -> its JUDGEMENT rows."""
    canary_rows: list[CanaryRow]
    trust: CanaryTrust | None
    """Trust by all canaries; None where this shard has none to judge."""
    injection_trust: CanaryTrust | None
    """Trust by the canaries that give orders to the judge; None where this shard has none to judge."""
    truncated: int
    """Candidates judged by their beginnings only; parts kept from an earlier attempt are not counted."""
    spreads: list[float]
    """Standard deviations of the votes, one an aspect of a candidate; NaN for a single vote. Kept parts not counted."""


@dataclass(frozen=True)
class PairedRewards:
    """Rewards (0 to 1, before penalties) of the same groups by the configured judge and by the base model."""

    judge: list[list[float]]
    base: list[list[float]]


class Shard:
    """Runs judges over a shard. What is judged in one call depends on the shard alone, never on what was kept."""

    def __init__(
        self,
        context: StageContext[JudgeParams],
        judges: Judges,
        shared: SharedParts[RolloutGroup, JudgementRow],
        leading: Sequence[RolloutGroup],
        verifiers: Sequence[Verifier] = (),
    ) -> None:
        """`leading` are the groups of shard 0, whichever shard this is: canaries are made for the first of them."""
        self._context = context
        self._judges = judges
        self._shared = shared
        self._parts = shared.parts
        self._leading = leading
        self._verifiers = verifiers
        self.decides = context.shard == 0 or self._decides_like_shard_0()
        """Whether this shard finds out for itself if the judge is fit; otherwise shard 0 does it for all."""
        judging = context.params.judging
        self._canary_groups = leading[: judging.canaries.prompts] if self.decides else ()
        self._canaries = make_canaries(as_canary_groups(self._canary_groups), context.seed, judging.canaries.injections)
        self._verified: dict[str, list[dict[str, float]]] = {}
        """Name of a part -> the verifiers' values of its answers, which are the same whoever judges."""
        self._done = 0
        self._total = 0

    def judge(self, judge: ChatModel, kept: Mapping[int, list[JudgementRow]], *, shares: bool) -> JudgedShard:
        """Judge and write the parts that are not kept, then judge the canaries.

        `shares`: other shards judge alike, so a part may be judged by any of them.
        """
        self._total += sum(_size(part) for part in self._parts) + len(self._canaries)
        self._done += sum(len(rows) for rows in kept.values())
        rows = dict(kept)
        scores: list[CandidateScore] = []
        for task in self._shared_tasks(rows) if shares else self._own_tasks(kept):
            found = self._score(judge, candidates_of(task.part.inputs))
            rows[task.part.index] = self._write(task, found, judge)
            scores += found
            self._context.telemetry.metric(
                JudgeMetrics.reward, mean_of(row["reward"] for part in rows.values() for row in part)
            )
        canary_rows, trust, injections = self._judge_canaries(judge, rows) if self._canaries else ([], None, None)
        return JudgedShard(
            judge=judge,
            rows=rows,
            canary_rows=canary_rows,
            trust=trust,
            injection_trust=injections,
            truncated=sum(score.truncated for score in scores),
            spreads=[aspect.spread for score in scores for aspect in score.aspects],
        )

    def help(self, judge: ChatModel) -> None:
        """Judge parts that other shards have not begun, until there are none."""
        while (task := self._shared.take_for_others()) is not None:
            self._total += _size(task.part)
            self._write(task, self._score(judge, candidates_of(task.part.inputs)), judge)

    def paired_rewards(self, judged: JudgedShard) -> PairedRewards | None:
        """Rewards of some groups by both judges, the configured one and the base model.

        None where both are the same model, or no prompts are wanted.
        """
        wanted = self._context.params.judging.base_agreement_prompts
        if not self._judges.differ or wanted == 0:
            return None
        mine = [group for part in self._parts for group in part.inputs]
        groups = (self._leading if self.decides else mine)[:wanted]
        by_base = is_base(judged.judge)
        given = self._given(judged, groups)
        other = self._rewards(self._judges.configured if by_base else self._judges.base, groups)
        return PairedRewards(judge=other, base=given) if by_base else PairedRewards(judge=given, base=other)

    def _given(self, judged: JudgedShard, groups: Sequence[RolloutGroup]) -> list[list[float]]:
        """The judge's rewards for groups that are this shard's own or shard 0's."""
        known = {_key(row): row["raw_reward"] for rows in judged.rows.values() for row in rows}
        if any(_key(row) not in known for group in groups for row in group.candidates):
            return self._rewards(judged.judge, groups)
        return [[known[_key(row)] for row in group.candidates] for group in groups]

    def _rewards(self, judge: ChatModel, groups: Sequence[RolloutGroup]) -> list[list[float]]:
        scores = iter(self._score(judge, candidates_of(groups), counts=False))
        return [[next(scores).reward for _ in group.candidates] for group in groups]

    def _decides_like_shard_0(self) -> bool:
        """Whether this shard looks at shard 0's groups as well, so that all shards fall back on the base judge or none.

        Where an unfit judge stops the run, shard 0 alone can do that.
        """
        params = self._context.params
        gates = params.judging.gates
        return gates.need_figures and gates.on_unfit is OnUnfitJudge.USE_BASE and self._judges.differ

    def _judge_canaries(
        self, judge: ChatModel, rows: Mapping[int, list[JudgementRow]]
    ) -> tuple[list[CanaryRow], CanaryTrust, CanaryTrust | None]:
        """CANARY rows, what all canaries say of the judge, and what the injected ones alone say."""
        canaries = [Candidate(c.prompt_id, c.messages, c.text) for c in self._canaries]
        scores = self._score(judge, canaries)
        if self._context.shard == 0:
            prompts = {group.prompt_id for group in self._canary_groups}
            real = [r["raw_reward"] for part in self._parts for r in rows[part.index] if r["prompt_id"] in prompts]
        else:
            real = [reward for group in self._rewards(judge, self._canary_groups) for reward in group]
        made = [self._canary_row(canary, score, judge) for canary, score in zip(self._canaries, scores, strict=True)]
        injected = [row["reward"] for row in made if row["kind"] == CanaryKind.INJECTED.value]
        return (
            made,
            canary_trust(real, [score.reward for score in scores]),
            canary_trust(real, injected) if injected else None,
        )

    def _score(self, model: ChatModel, candidates: Sequence[Candidate], *, counts: bool = True) -> list[CandidateScore]:
        params = self._context.params
        self._context.check_stop()
        judge = PointwiseJudge(model, params.objective, params.judging, seed=self._context.seed)
        scores = judge.score(candidates, self._watch(len(candidates) if counts else 0))
        self._done += len(candidates) if counts else 0
        return scores

    def _watch(self, share: int) -> Watch:
        watch = watch_progress(self._context, done=self._done, total=self._total, share=share)

        def renewing(finished: int, requests: int, rate: float) -> None:
            self._shared.renew()
            watch(finished, requests, rate)

        return renewing

    def _own_tasks(self, kept: Collection[int]) -> Iterator[Task[RolloutGroup]]:
        """The parts of this shard that are not kept."""
        return (Task(self._context.shard, part) for part in self._parts if part.index not in kept)

    def _shared_tasks(self, rows: dict[int, list[JudgementRow]]) -> Iterator[Task[RolloutGroup]]:
        """Parts of this shard that no other shard has taken; what others have made is added to `rows`."""
        is_left = True
        while is_left:
            task = self._shared.take_own() or self._shared.wait()
            for index, made in self._shared.rows.items():
                if index not in rows:
                    rows[index] = made
                    self._done += len(made)
            is_left = task is not None
            if task is not None:
                yield task

    def _write(
        self, task: Task[RolloutGroup], scores: Sequence[CandidateScore], judge: ChatModel
    ) -> list[JudgementRow]:
        rollouts = [row for group in task.part.inputs for row in group.candidates]
        if task.name not in self._verified:
            self._verified[task.name] = verify(self._verifiers, [answer_of(rollout) for rollout in rollouts])
        rows = [
            self._judgement(rollout, score, judge, values)
            for rollout, score, values in zip(rollouts, scores, self._verified[task.name], strict=True)
        ]
        self._shared.finish(task, rows)
        return rows

    def _judgement(
        self, rollout: RolloutRow, score: CandidateScore, judge: ChatModel, values: dict[str, float]
    ) -> JudgementRow:
        opinion = Opinion(score_rows(self._context.params.objective, score), score.reward, score.error, score.retries)
        return build_judgement(
            self._context.params, weights_of(self._verifiers), rollout, opinion, values, judge=judge.version
        )

    def _canary_row(self, canary: Canary, score: CandidateScore, judge: ChatModel) -> CanaryRow:
        return {
            "prompt_id": canary.prompt_id,
            "kind": canary.kind.value,
            "attack": canary.attack,
            "text": canary.text,
            "scores": score_rows(self._context.params.objective, score),
            "reward": score.reward,
            "judge": judge.version,
        }


def _size(part: Part[RolloutGroup]) -> int:
    return sum(len(group.candidates) for group in part.inputs)


def _key(row: RolloutRow | JudgementRow) -> tuple[str, int]:
    return row["prompt_id"], row["candidate"]
