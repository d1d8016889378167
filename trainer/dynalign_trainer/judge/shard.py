"""A shard of rollouts in front of a judge: its parts, the canaries, a second opinion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dynalign_contract.config import JudgeParams, Policy
from dynalign_contract.metrics import JudgeMetrics
from dynalign_contract.records import JUDGEMENT, CanaryRow, JudgementRow, RolloutRow, ScoreRow, write_rows
from dynalign_contract.settings import OnUnfitJudge
from dynalign_trainer.judge.canaries import Canary, CanaryKind, Group, make_canaries
from dynalign_trainer.judge.groups import RolloutGroup
from dynalign_trainer.judge.penalties import final_reward, find_penalties
from dynalign_trainer.judge.trust import CanaryTrust, canary_trust
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.parts import Part
from dynalign_trainer.runtime.progress import Watch, watch_progress
from dynalign_trainer.scoring.exhibits import Candidate
from dynalign_trainer.scoring.pointwise import Judge, Verdict
from dynalign_trainer.scoring.scores import mean_of


@dataclass(frozen=True)
class JudgedShard:
    """All that one judge said about a shard."""

    judge: Policy
    rows: dict[int, list[JudgementRow]]
    """Part -> its JUDGEMENT rows."""
    canary_rows: list[CanaryRow]
    trust: CanaryTrust | None
    """Of all canaries; None where this shard has none to judge."""
    injection_trust: CanaryTrust | None
    """Of those that give orders to the judge alone; None where this shard has none to judge."""
    cut: int
    """Candidates judged by their beginnings only; parts kept from an earlier attempt are not counted."""
    spreads: list[float]
    """Standard deviations of the votes, one an aspect of a candidate; NaN for a single vote. Kept parts not counted."""


@dataclass(frozen=True)
class Opinions:
    """Rewards (0 to 1, before penalties) of the same groups by the configured judge and by the base model."""

    judge: list[list[float]]
    base: list[list[float]]


class Shard:
    """Runs judges over a shard. What is judged in one call depends on the shard alone, never on what was kept."""

    def __init__(
        self,
        context: StageContext[JudgeParams],
        engine: Engine,
        parts: Sequence[Part[RolloutGroup]],
        leading: Sequence[RolloutGroup],
    ) -> None:
        """`leading` are the groups of shard 0, whichever shard this is: canaries are made for the first of them."""
        self.tokens_read = 0
        """Prompt tokens shown to judges so far, those found in the prefix cache included."""
        self._context = context
        self._engine = engine
        self._parts = parts
        self._leading = leading
        self.decides = context.shard == 0 or self._decides_like_shard_0()
        """Whether this shard finds out for itself if the judge is fit; otherwise shard 0 does it for all."""
        judging = context.params.judging
        self._canary_groups = leading[: judging.canaries.prompts] if self.decides else ()
        self._canaries = make_canaries(
            [_as_group(group) for group in self._canary_groups], context.seed, judging.canaries.injections
        )
        self._done = 0
        self._total = 0

    def judge(self, policy: Policy, kept: Mapping[int, list[JudgementRow]]) -> JudgedShard:
        """Judge and write the parts that are not kept, then judge the canaries."""
        self._total += sum(_size(part) for part in self._parts) + len(self._canaries)
        self._done += sum(len(rows) for rows in kept.values())
        rows = dict(kept)
        verdicts: list[Verdict] = []
        for part in self._parts:
            if part.index in rows:
                continue
            found = self._score(policy, _candidates(part.inputs))
            rows[part.index] = self._write(part, found, policy)
            verdicts += found
            self._context.telemetry.metric(
                JudgeMetrics.reward, mean_of(row["reward"] for part in rows.values() for row in part)
            )
        canary_rows, trust, injections = self._judge_canaries(policy, rows) if self._canaries else ([], None, None)
        return JudgedShard(
            judge=policy,
            rows=rows,
            canary_rows=canary_rows,
            trust=trust,
            injection_trust=injections,
            cut=sum(verdict.cut for verdict in verdicts),
            spreads=[reading.spread for verdict in verdicts for reading in verdict.readings],
        )

    def second_opinion(self, judged: JudgedShard) -> Opinions | None:
        """Let the other one of configured judge and base model score some groups too; None when
        they are the same or nobody asks."""
        configured = self._context.params.judge
        wanted = self._context.params.judging.second_opinions
        if configured.adapter is None or wanted == 0:
            return None
        mine = [group for part in self._parts for group in part.inputs]
        groups = (self._leading if self.decides else mine)[:wanted]
        is_base = judged.judge.adapter is None
        given = self._given(judged, groups)
        other = self._rewards(configured if is_base else Policy(), groups)
        return Opinions(judge=other, base=given) if is_base else Opinions(judge=given, base=other)

    def _given(self, judged: JudgedShard, groups: Sequence[RolloutGroup]) -> list[list[float]]:
        """The judge's rewards for groups that are this shard's own or shard 0's."""
        known = {_key(row): row["raw_reward"] for rows in judged.rows.values() for row in rows}
        if any(_key(row) not in known for group in groups for row in group.candidates):
            return self._rewards(judged.judge, groups)
        return [[known[_key(row)] for row in group.candidates] for group in groups]

    def _rewards(self, policy: Policy, groups: Sequence[RolloutGroup]) -> list[list[float]]:
        verdicts = iter(self._score(policy, _candidates(groups), counts=False))
        return [[next(verdicts).reward for _ in group.candidates] for group in groups]

    def _decides_like_shard_0(self) -> bool:
        """Whether this shard looks at shard 0's groups as well, so that all shards fall back on the base judge or none.

        Where an unfit judge stops the run, shard 0 alone can do that.
        """
        params = self._context.params
        gates = params.judging.gates
        figures = (gates.min_canary_margin, gates.min_canary_auc, gates.min_injection_margin, gates.min_base_agreement)
        gated = any(figure is not None for figure in figures)
        return gated and gates.on_unfit is OnUnfitJudge.USE_BASE and params.judge.adapter is not None

    def _judge_canaries(
        self, policy: Policy, rows: Mapping[int, list[JudgementRow]]
    ) -> tuple[list[CanaryRow], CanaryTrust, CanaryTrust | None]:
        """CANARY rows, what all canaries say of the judge, and what the injected ones alone say."""
        canaries = [Candidate(c.prompt_id, c.messages, c.text) for c in self._canaries]
        verdicts = self._score(policy, canaries)
        if self._context.shard == 0:
            prompts = {group.prompt_id for group in self._canary_groups}
            real = [r["raw_reward"] for part in self._parts for r in rows[part.index] if r["prompt_id"] in prompts]
        else:
            real = [reward for group in self._rewards(policy, self._canary_groups) for reward in group]
        made = [
            self._canary_row(canary, verdict, policy) for canary, verdict in zip(self._canaries, verdicts, strict=True)
        ]
        injected = [row["reward"] for row in made if row["kind"] == CanaryKind.INJECTED.value]
        return (
            made,
            canary_trust(real, [verdict.reward for verdict in verdicts]),
            canary_trust(real, injected) if injected else None,
        )

    def _score(self, policy: Policy, candidates: Sequence[Candidate], *, counts: bool = True) -> list[Verdict]:
        """Judge with an empty prefix cache, so that the last bits do not depend on what was judged before."""
        params = self._context.params
        self._context.check_stop()
        self._engine.forget_prefixes()
        judge = Judge(self._engine, params.objective, params.judging, policy=policy, seed=self._context.seed)
        verdicts = judge.score(candidates, self._watch(len(candidates) if counts else 0))
        self.tokens_read += judge.tokens_read
        self._done += len(candidates) if counts else 0
        return verdicts

    def _watch(self, share: int) -> Watch:
        return watch_progress(self._context, done=self._done, total=self._total, share=share)

    def _write(self, part: Part[RolloutGroup], verdicts: Sequence[Verdict], policy: Policy) -> list[JudgementRow]:
        rollouts = [row for group in part.inputs for row in group.candidates]
        rows = [self._judgement(rollout, verdict, policy) for rollout, verdict in zip(rollouts, verdicts, strict=True)]
        write_rows(self._context.folder / part.name, rows, JUDGEMENT)
        return rows

    def _judgement(self, rollout: RolloutRow, verdict: Verdict, policy: Policy) -> JudgementRow:
        params = self._context.params
        penalties = find_penalties(
            rollout["text"],
            prompt=rollout["messages"][-1]["content"],
            length=len(rollout["completion_ids"]),
            truncated=rollout["finish_reason"] == "length",
            settings=params.judging.penalties,
            max_tokens=params.max_tokens,
        )
        return {
            "prompt_id": rollout["prompt_id"],
            "candidate": rollout["candidate"],
            "scores": self._scores(verdict),
            "raw_reward": verdict.reward,
            "penalties": penalties,
            "reward": final_reward(verdict.reward, penalties),
            "reward_error": verdict.error,
            "retries": verdict.retries,
            "judge": policy.version,
        }

    def _canary_row(self, canary: Canary, verdict: Verdict, policy: Policy) -> CanaryRow:
        return {
            "prompt_id": canary.prompt_id,
            "kind": canary.kind.value,
            "attack": canary.attack,
            "text": canary.text,
            "scores": self._scores(verdict),
            "reward": verdict.reward,
            "judge": policy.version,
        }

    def _scores(self, verdict: Verdict) -> list[ScoreRow]:
        return [
            {"aspect": aspect.id, "score": reading.score, "mass": reading.mass}
            for aspect, reading in zip(self._context.params.objective.aspects, verdict.readings, strict=True)
        ]


def _candidates(groups: Sequence[RolloutGroup]) -> list[Candidate]:
    return [Candidate(group.prompt_id, group.messages, row["text"]) for group in groups for row in group.candidates]


def _as_group(group: RolloutGroup) -> Group:
    return Group(group.prompt_id, group.messages, [row["text"] for row in group.candidates])


def _size(part: Part[RolloutGroup]) -> int:
    return sum(len(group.candidates) for group in part.inputs)


def _key(row: RolloutRow | JudgementRow) -> tuple[str, int]:
    return row["prompt_id"], row["candidate"]
