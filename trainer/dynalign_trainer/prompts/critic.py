"""The critic: scores drafts by the expected digit of each of its criteria."""

import math
from collections.abc import Sequence
from dataclasses import replace
from string import Template
from typing import Final

from dynalign_contract.config import Policy
from dynalign_contract.objective import CriticTemplate, Objective
from dynalign_trainer.choices import digit_tokens
from dynalign_trainer.engine import Engine, Watch
from dynalign_trainer.judging.scoring import expected_digit
from dynalign_trainer.prompts.drafts import Draft, Tally

_OPEN: Final = "<<<draft"
_CLOSE: Final = "draft>>>"


def score_drafts(
    engine: Engine, objective: Objective, drafts: Sequence[Draft], *, policy: Policy, tally: Tally, watch: Watch
) -> list[Draft]:
    """The drafts with their scores, in order; unchanged when the objective has no critic."""
    critic = objective.critic
    if critic is None or not drafts:
        return list(drafts)
    prompts = [
        engine.chat_ids([{"role": "user", "content": message}], critic.prefill)
        for draft in drafts
        for message in critic_messages(critic, objective.preamble, draft.text)
    ]
    digits = digit_tokens(engine.tokenizer, critic.prefill)
    tally.tokens += sum(len(ids) + 1 for ids in prompts)
    scores = [expected_digit(row)[0] for row in engine.score_next(prompts, digits, policy=policy, watch=watch)]
    count = len(critic.criteria)
    return [
        replace(draft, score=math.fsum(scores[i * count : (i + 1) * count]) / count) for i, draft in enumerate(drafts)
    ]


def critic_messages(critic: CriticTemplate, preamble: str, text: str) -> list[str]:
    """What the critic is asked about one draft, a message for each criterion; they differ only at their ends."""
    shown = Template(critic.message).safe_substitute(preamble=preamble, prompt=text, open=_OPEN, close=_CLOSE)
    return [f"{shown}\n\n{question}" for question in critic.criteria.values()]


def keep_best(drafts: Sequence[Draft], wanted: int) -> list[Draft]:
    """The `wanted` drafts of the highest score, in their own order; unscored ones count as lowest."""
    ranked = sorted(
        range(len(drafts)), key=lambda i: (-drafts[i].score if math.isfinite(drafts[i].score) else math.inf, i)
    )
    return [drafts[i] for i in sorted(ranked[:wanted])]
