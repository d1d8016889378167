"""What one judge of a panel says: its scores of a shard, kept beside the artifact until all judges are done."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

from dynalign_contract.config import JudgeParams
from dynalign_contract.records import RolloutRow, Table, read_rows, write_rows
from dynalign_contract.records.columns import Flag, Float32, Int32, Scores, Text
from dynalign_contract.settings import JudgingSettings, OnUnfitJudge
from dynalign_trainer.endpoints.refusals import EndpointError
from dynalign_trainer.judge.groups import RolloutGroup, candidates_of
from dynalign_trainer.judge.panel.members import Member
from dynalign_trainer.judge.panel.questions import Key, Questions, key_of, keys_of
from dynalign_trainer.judge.rewarding import score_rows
from dynalign_trainer.models.chat_model import ChatModel
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.parts import Part, reuse_finished_parts
from dynalign_trainer.runtime.progress import watch_progress
from dynalign_trainer.scoring.contexts import Candidate
from dynalign_trainer.scoring.pointwise import AspectScore, CandidateScore, PointwiseJudge
from dynalign_trainer.scoring.scores import mean_of

log = logging.getLogger("dynalign.judge")

OPINIONS_FOLDER: Final = ".opinions"
"""Beside the artifact's files while the stage works: a folder a judge, with its parts; gone when the stage is done."""


class OpinionRow(TypedDict):
    """One judge's scores of one candidate."""

    prompt_id: Text
    candidate: Int32
    scores: Scores
    reward: Float32
    error: Float32
    retries: Int32
    truncated: Flag
    spread: Float32
    """Standard deviation of the votes, mean over the aspects."""
    judge: Text


OPINION: Final = Table(OpinionRow)


@dataclass(frozen=True)
class Opinions:
    """One judge's scores of everything that it was asked about."""

    member: Member
    rows: Mapping[Key, OpinionRow]
    """The shard's own candidates."""
    rewards: Mapping[Key, float]
    """Rewards of the shard's own candidates and of those in foreign groups; NaN where there is none."""
    canaries: Sequence[CandidateScore]
    """In the order of the questions' canaries."""
    failure: str | None = None
    """Why the judge stopped answering; what it was not asked then has no reward."""


@dataclass
class PanelShard:
    """Asks judges about a shard. What is asked in one call depends on the shard alone, never on what was kept."""

    context: StageContext[JudgeParams]
    questions: Questions
    total: int
    """Answers that are scored in all, by all judges."""
    done: int = 0

    def ask(self, member: Member) -> Opinions:
        """The judge's opinions; parts that an earlier attempt has kept are not asked for again.

        A server that fails as a whole ends the stage with EndpointError, unless the judge does not count or may be left
        out: the opinion then names the failure.
        """
        given: dict[Key, OpinionRow] = {}
        rewards: dict[Key, float] = {}
        canaries: list[CandidateScore] = []
        failure = None
        try:
            for part, rows in self._judge_parts(member):
                given |= {key_of(row): opinion for row, opinion in zip(_rollouts(part), rows, strict=True)}
            rewards = self.rewards(member.model, self._settings(member), self.questions.foreign)
            canaries = self._score(member.model, self._settings(member), self._canaries())
        except EndpointError as error:
            if member.settings.counts and self.context.params.judging.gates.on_unfit is not OnUnfitJudge.LEAVE_OUT:
                raise
            failure = str(error)
            log.warning("the judge %s is asked nothing more: %s", member.name, error)
        return Opinions(member, *self._complete(member, given, rewards), canaries or self._silence(), failure)

    def rewards(self, model: ChatModel, judging: JudgingSettings, groups: Sequence[RolloutGroup]) -> dict[Key, float]:
        """A model's rewards of the candidates of these groups."""
        scores = self._score(model, judging, candidates_of(groups))
        keys = [key for group in groups for key in keys_of(group)]
        return {key: score.reward for key, score in zip(keys, scores, strict=True)}

    def _judge_parts(self, member: Member) -> Iterator[tuple[Part[RolloutGroup], list[OpinionRow]]]:
        folder = self.context.folder / OPINIONS_FOLDER / member.name
        folder.mkdir(parents=True, exist_ok=True)

        def is_complete(part: Part[RolloutGroup], rows: list[OpinionRow]) -> bool:
            found = [(row["prompt_id"], row["candidate"]) for row in rows]
            versions = {row["judge"] for row in rows}
            return found == [key_of(row) for row in _rollouts(part)] and versions <= {member.model.version}

        kept = reuse_finished_parts(folder, self.questions.parts, OPINION, is_complete)
        self.done += sum(map(len, kept.values()))
        for part in self.questions.parts:
            yield part, kept.get(part.index) or self._judge_part(member, part, folder)

    def _judge_part(self, member: Member, part: Part[RolloutGroup], folder: Path) -> list[OpinionRow]:
        scores = self._score(member.model, self._settings(member), candidates_of(part.inputs))
        rows = [self._row(member, key_of(row), score) for row, score in zip(_rollouts(part), scores, strict=True)]
        write_rows(folder / part.name, rows, OPINION)
        self.context.save_useful_time()
        return read_rows(folder / part.name, OPINION)  # a later attempt goes on from the very same numbers

    def _row(self, member: Member, key: Key, score: CandidateScore) -> OpinionRow:
        return {
            "prompt_id": key[0],
            "candidate": key[1],
            "scores": score_rows(self.context.params.objective, score),
            "reward": score.reward,
            "error": score.error,
            "retries": score.retries,
            "truncated": score.truncated,
            "spread": mean_of(aspect.spread for aspect in score.aspects),
            "judge": member.model.version,
        }

    def _complete(
        self, member: Member, given: Mapping[Key, OpinionRow], rewards: Mapping[Key, float]
    ) -> tuple[dict[Key, OpinionRow], dict[Key, float]]:
        """Rows of own candidates and rewards of all, NaN for everything that the judge did not answer."""
        silent = self._silent()
        keys = [key for group in self.questions.own for key in keys_of(group)]
        rows = {key: given.get(key) or self._row(member, key, silent) for key in keys}
        foreign = [key for group in self.questions.foreign for key in keys_of(group)]
        others = {key: rewards.get(key, math.nan) for key in foreign}
        return rows, {key: row["reward"] for key, row in rows.items()} | others

    def _silence(self) -> list[CandidateScore]:
        return [self._silent()] * len(self.questions.canaries)

    def _silent(self) -> CandidateScore:
        nothing = AspectScore(math.nan, math.nan)
        aspects = (nothing,) * len(self.context.params.objective.aspects)
        return CandidateScore(aspects, reward=math.nan, error=math.nan, retries=0, truncated=False)

    def _canaries(self) -> list[Candidate]:
        return [Candidate(canary.prompt_id, canary.messages, canary.text) for canary in self.questions.canaries]

    def _settings(self, member: Member) -> JudgingSettings:
        return self.context.params.judging.of(member.settings)

    def _score(
        self, model: ChatModel, judging: JudgingSettings, candidates: Sequence[Candidate]
    ) -> list[CandidateScore]:
        self.context.check_stop()
        judge = PointwiseJudge(model, self.context.params.objective, judging, seed=self.context.seed)
        watch = watch_progress(self.context, done=self.done, total=self.total, share=len(candidates))
        scores = judge.score(candidates, watch)
        self.done += len(candidates)
        return scores


def _rollouts(part: Part[RolloutGroup]) -> list[RolloutRow]:
    return [row for group in part.inputs for row in group.candidates]
