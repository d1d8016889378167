"""The rewards of one evaluation: which answers get them, what is known already, and where they are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dynalign_contract.config import EvaluateParams, Policy
from dynalign_contract.layout import ANSWERS_FILE
from dynalign_contract.records import ANSWER, AnswerRow, PromptRow, read_rows, write_rows
from dynalign_trainer.evaluate.comparing import KnownRewards
from dynalign_trainer.evaluate.fixed_judges import FixedJudges
from dynalign_trainer.evaluate.held_out_reward import are_rewarded, explain_missing, known_rewards, reward_answers
from dynalign_trainer.evaluate.progress import Progress
from dynalign_trainer.runtime.context import StageContext


@dataclass(frozen=True)
class HeldOut:
    """The held-out answers in front of judges that stay the same over the iterations."""

    context: StageContext[EvaluateParams]
    judges: FixedJudges
    earlier: Sequence[Sequence[AnswerRow]]
    """ANSWER rows of each earlier evaluation (`read_earlier_answers`)."""

    def units(self, prompts: Sequence[PromptRow]) -> int:
        """Answers that are rewarded."""
        return len(prompts) * len({Policy().version, self.context.params.policy.version})

    def reward(self, answers: Mapping[str, list[AnswerRow]], progress: Progress) -> dict[str, list[AnswerRow]]:
        """The answers, by policy version, with their rewards, which are written beside them.

        Rewards that an earlier attempt has written are kept, and those that an earlier evaluation has written, as far
        as it is one of the stage's inputs. Warns of answers without a reward.
        """
        policy = self.context.params.policy
        watch = progress.begin(sum(len(answers[version]) for version in {Policy().version, policy.version}))
        if are_rewarded(self.judges, answers, policy):
            return dict(answers)
        known = [row for rows in self.earlier for row in rows]
        rewarded = reward_answers(self.judges, answers, policy=policy, known=known, watch=watch)
        path = self.context.folder / ANSWERS_FILE
        write_rows(path, [row for rows in rewarded.values() for row in rows], ANSWER)
        written = iter(read_rows(path, ANSWER))  # a later attempt goes on from the very same numbers
        rewarded = {version: [next(written) for _ in rows] for version, rows in rewarded.items()}
        if missing := explain_missing(self.judges, rewarded, policy):
            self.context.warn(missing)
        return rewarded

    def known_rewards(self, answers: Mapping[str, Sequence[AnswerRow]]) -> KnownRewards:
        """Rewards of answers by the base model, where it alone is the judge: those just given, and earlier ones.

        `answers` are rewarded ANSWER rows. None where several judges share a reward.
        """
        if self.context.params.judging.judges:
            return {}
        rows = (row for rows in (*self.earlier, *answers.values()) for row in rows)
        return known_rewards(rows, self.judges.digest)
