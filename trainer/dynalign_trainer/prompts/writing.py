"""Prompts written by the agents: rounds of drafts, each cleaned, curated and scored, until there are enough."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from dynalign_contract.config import Policy, PromptsParams
from dynalign_contract.settings import AgentModel
from dynalign_trainer.context import StageContext
from dynalign_trainer.engine import Engine, Message, watch_progress
from dynalign_trainer.prompts.author import write_drafts
from dynalign_trainer.prompts.critic import keep_best, score_drafts
from dynalign_trainer.prompts.curator import Curator, check_length
from dynalign_trainer.prompts.drafts import Draft, Drop, Tally
from dynalign_trainer.prompts.seeds import merge_facets, sample_seeds

_ROUNDS: Final = 3
_AUTHOR_SHARE: Final = 0.75
"""Share of a round's progress that writing makes up; scoring is the rest."""


@dataclass(frozen=True)
class Order:
    """How many prompts are wanted, of whom, and for what."""

    purpose: str
    """`train` or `heldout`; it enters the random seeds."""
    wanted: int
    author: Policy
    critic: Policy
    done: int
    """Prompts of the stage that are finished already, of `total`."""
    total: int


@dataclass(frozen=True)
class PromptWriter:
    """The agents at work for one stage, and the curator who remembers what they wrote."""

    context: StageContext[PromptsParams]
    engine: Engine
    curator: Curator

    @property
    def limit(self) -> int:
        """Longest prompt in tokens, chat template included, that leaves room for a completion."""
        params = self.context.params
        return min(params.prompts.max_tokens, self.engine.max_length - params.reserve_tokens)

    def write(self, order: Order, tally: Tally) -> list[Draft]:
        """Up to `order.wanted` drafts, the best by the critic; fewer when three rounds did not bring enough."""
        settings = self.context.params.prompts
        kept: list[Draft] = []
        for number in range(_ROUNDS):
            if (missing := order.wanted - len(kept)) <= 0:
                break
            count = math.ceil(missing * settings.agents.author.drafts_per_prompt)
            done = order.done + len(kept)
            drafts = self._author(order, tally, number=number, count=count, done=done)
            fresh = curate(drafts, self.curator, self._check_draft, tally)
            kept += self._criticise(order, tally, fresh, done=done)
        return keep_best(kept, order.wanted)

    def admit(self, chats: Sequence[tuple[Message, ...]], tally: Tally) -> list[tuple[Message, ...]]:
        """The user's prompts that fit and are new; the others are counted."""
        kept = []
        for chat in chats:
            text = "\n".join(message["content"] for message in chat)
            tally.drafts += 1
            cause = Drop.LONG if len(self.engine.chat_ids(chat)) > self.limit else self.curator.admit(text)
            if cause is None:
                kept.append(chat)
            else:
                tally.drop(cause, text)
        return kept

    def _check_draft(self, text: str) -> Drop | None:
        return check_length(
            text,
            lambda text: len(self.engine.chat_ids([{"role": "user", "content": text}])),
            min_characters=self.context.params.prompts.min_characters,
            max_tokens=self.limit,
        )

    def _author(self, order: Order, tally: Tally, *, number: int, count: int, done: int) -> list[Draft]:
        context, params = self.context, self.context.params
        facets = merge_facets(params.objective.facets, params.prompts.seeds.facets)
        rng = random.Random(context.seed("facets", order.purpose, number))  # noqa: S311 - no secret
        share = _AUTHOR_SHARE * (order.done + order.wanted - done)
        self.engine.forget_prefixes()
        return write_drafts(
            self.engine,
            params.objective,
            params.prompts.agents.author,
            sample_seeds(facets, count, rng),
            policy=order.author,
            sampling_seeds=[context.seed("author", order.purpose, number, i) for i in range(count)],
            tally=tally,
            watch=watch_progress(context, done=done, total=order.total, share=share),
        )

    def _criticise(self, order: Order, tally: Tally, drafts: Sequence[Draft], *, done: int) -> list[Draft]:
        missing = order.done + order.wanted - done
        written = done + round(_AUTHOR_SHARE * missing)
        share = (1 - _AUTHOR_SHARE) * missing
        self.engine.forget_prefixes()
        scored = score_drafts(
            self.engine,
            self.context.params.objective,
            drafts,
            policy=order.critic,
            tally=tally,
            watch=watch_progress(self.context, done=written, total=order.total, share=share),
        )
        least = self.context.params.prompts.agents.critic.min_score
        for draft in scored:
            if draft.score < least:
                tally.drop(Drop.LOW_SCORE, draft.text)
        return [draft for draft in scored if not draft.score < least]


def agent_policy(model: AgentModel, policy: Policy) -> Policy:
    """The weights that play an agent's role."""
    return policy if model is AgentModel.POLICY else Policy()


def curate(drafts: Sequence[Draft], curator: Curator, check: Callable[[str], Drop | None], tally: Tally) -> list[Draft]:
    """The drafts of the right length that resemble nothing before them; the others are counted."""
    fresh = []
    for draft in drafts:
        cause = check(draft.text) or curator.admit(draft.text)
        if cause is None:
            fresh.append(draft)
        else:
            tally.drop(cause, draft.text)
    return fresh
