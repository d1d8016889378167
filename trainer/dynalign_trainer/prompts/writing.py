"""Prompts written by the agents: rounds of drafts, each curated, scored and perhaps revised, until there are enough."""

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dynalign_contract.agents import Role
from dynalign_contract.config import PromptsParams
from dynalign_contract.errors import BadInputError
from dynalign_contract.supplied.turns import Message
from dynalign_trainer.models.chat_model import ChatModel
from dynalign_trainer.models.window import Window
from dynalign_trainer.prompts.author import write_drafts
from dynalign_trainer.prompts.choosing import choose_drafts
from dynalign_trainer.prompts.critic import Quotation, score_drafts
from dynalign_trainer.prompts.curator import Curator, check_length
from dynalign_trainer.prompts.drafts import Actor, Draft, Drop, Tally
from dynalign_trainer.prompts.reviser import revise_drafts, sort_drafts
from dynalign_trainer.prompts.seeds import merge_facets, sample_seeds
from dynalign_trainer.prompts.wording import read_wording
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.progress import Watch, watch_progress

_ROUNDS: Final = 3
_AUTHOR_SHARE: Final = 0.7
_CRITIC_SHARE: Final = 0.85
"""Share of a round's progress after which the author, and the critic, are done; the reviser has the rest."""


@dataclass(frozen=True)
class PromptRequest:
    """The number of prompts to write, and their purpose."""

    purpose: str
    """`train` or `heldout`; it enters the random seeds and the drafts' ids."""
    wanted: int
    done: int
    """Prompts of the stage that are finished already, of `total`."""
    total: int


@dataclass(frozen=True)
class PromptWriter:
    """The agents at work for one stage, and the curator who remembers what they wrote."""

    context: StageContext[PromptsParams]
    roles: Mapping[Role, ChatModel]
    curator: Curator
    window: Window
    quotation: Quotation

    @property
    def limit(self) -> int:
        """Maximum length of a prompt in tokens, chat template included, that leaves room for a completion."""
        params = self.context.params
        return min(params.prompts.max_tokens, self.window.max_length - params.reserve_tokens)

    @property
    def facets(self) -> dict[str, tuple[str, ...]]:
        """Values to seed the author with."""
        return merge_facets(self.context.params.objective.facets, self.context.params.prompts.seeds.facets)

    def write(self, order: PromptRequest, tally: Tally) -> list[Draft]:
        """Up to `order.wanted` drafts; fewer when three rounds, or the agents' budgets, did not bring enough.

        The agents are not asked for anything when none are wanted.
        """
        if order.wanted <= 0:
            return []
        settings = self.context.params.prompts
        before = self._spent()
        kept: list[Draft] = []
        for number in range(_ROUNDS):
            if (missing := order.wanted - len(kept)) <= 0 or self._cannot_go_on():
                break
            kept += self._round(order, tally, number=number, missing=missing)
        chosen = choose_drafts(kept, order.wanted, self.facets, settings.seeds.balance)
        used = {draft.draft_id for draft in chosen}
        for draft in kept:
            if draft.draft_id not in used:
                tally.drop(Actor.CURATOR, Drop.SURPLUS, draft)
        self._settle(tally, before)
        return chosen

    def admit(self, chats: Iterable[tuple[Message, ...]], wanted: int, tally: Tally) -> list[tuple[Message, ...]]:
        """The first `wanted` of the user's prompts that fit and are new; those that are not are counted."""
        kept: list[tuple[Message, ...]] = []
        work = tally.of(Actor.SUPPLIED)
        for chat in chats:
            if len(kept) >= wanted:
                break
            self.context.check_stop()
            wording = read_wording(chat)
            work.given += 1
            cause = self._check_chat(chat) or self.curator.admit(wording)
            if cause is None:
                kept.append(chat)
            else:
                tally.drop(Actor.SUPPLIED, cause, Draft(wording.turn, {}))
        work.kept += len(kept)
        return kept

    def _round(self, order: PromptRequest, tally: Tally, *, number: int, missing: int) -> list[Draft]:
        """What one round adds. Good drafts go on as they are; the revised ones come after them."""
        agents = self.context.params.prompts.agents
        done = order.done + order.wanted - missing

        def watch(start: float, end: float) -> Watch:
            begun = done + round(start * missing)
            return watch_progress(self.context, done=begun, total=order.total, share=(end - start) * missing)

        count = math.ceil(missing * agents.author.drafts_per_prompt)
        drafts = self._author(order, tally, number=number, count=count, watch=watch(0, _AUTHOR_SHARE))
        fresh = curate(drafts, self.curator, self._check_length, tally)
        scored = self._criticise(tally, fresh, watch(_AUTHOR_SHARE, _CRITIC_SHARE))
        verdicts = sort_drafts(scored, agents.critic.min_score, agents.reviser)
        for draft in verdicts.hopeless:
            tally.drop(Actor.CRITIC, Drop.LOW_SCORE, draft)
        kept = tally.keep(Actor.CRITIC, verdicts.good)
        return kept + self._revise(order, tally, verdicts.mendable, watch(_CRITIC_SHARE, 1))

    def _author(self, order: PromptRequest, tally: Tally, *, number: int, count: int, watch: Watch) -> list[Draft]:
        context = self.context
        rng = random.Random(context.seed("facets", order.purpose, number))  # noqa: S311 - no secret
        return write_drafts(
            self.roles[Role.AUTHOR],
            context.params.objective,
            context.params.prompts.agents.author,
            sample_seeds(self.facets, count, rng),
            names=[f"{order.purpose}-{number}-{i:05d}" for i in range(count)],
            sampling_seeds=[context.seed("author", order.purpose, number, i) for i in range(count)],
            tally=tally,
            watch=watch,
        )

    def _criticise(self, tally: Tally, drafts: Sequence[Draft], watch: Watch) -> list[Draft]:
        """The drafts with scores. Those that a used-up budget leaves without one are dropped.

        Raises BadInputError when the critic scores none of them at all.
        """
        model, objective = self.roles[Role.CRITIC], self.context.params.objective
        tally.of(Actor.CRITIC).given += len(drafts)
        scored = score_drafts(model, objective, drafts, self.quotation, watch=watch)
        if not model.exhausted_budget():
            if scored and objective.critic is not None and all(math.isnan(draft.score) for draft in scored):
                raise BadInputError(
                    f"the critic {model.version} answered none of its questions about {len(scored)} drafts with a "
                    "digit. Name another model in prompts.agents.critic, or word the objective's critic.criteria so "
                    "that they ask for one digit."
                )
            return scored
        for draft in scored:
            if math.isnan(draft.score):
                tally.drop(Actor.CRITIC, Drop.BUDGET, draft)
        return [draft for draft in scored if not math.isnan(draft.score)]

    def _revise(self, order: PromptRequest, tally: Tally, drafts: Sequence[Draft], watch: Watch) -> list[Draft]:
        """The version of each draft that the critic scores higher, where it reaches `critic.minScore`."""
        agents, objective = self.context.params.prompts.agents, self.context.params.objective
        if agents.reviser is None or not drafts:
            return []
        revised = revise_drafts(
            self.roles[Role.REVISER],
            objective,
            agents.reviser,
            drafts,
            self.quotation,
            sampling_seeds=[self.context.seed("reviser", order.purpose, draft.draft_id) for draft in drafts],
            tally=tally,
            watch=watch,
        )
        fresh = [draft for draft in revised if self._replace(draft, tally)]
        scored = score_drafts(self.roles[Role.CRITIC], objective, fresh, self.quotation, watch=watch)
        better = {draft.draft_id: draft for draft in scored if self._is_better(draft, tally)}
        kept: dict[Actor, list[Draft]] = {Actor.CRITIC: [], Actor.REVISER: []}
        for draft in drafts:
            hand = Actor.REVISER if draft.draft_id in better else Actor.CRITIC
            best = better.get(draft.draft_id, draft)
            if best.score < agents.critic.min_score:
                tally.drop(Actor.CRITIC, Drop.LOW_SCORE, best)
            else:
                kept[hand].append(best)
        return [draft for hand, found in kept.items() for draft in tally.keep(hand, found)]

    def _replace(self, revised: Draft, tally: Tally) -> bool:
        """Check a revised text against the curator, replacing the original."""
        before = revised.before or revised
        cause = self._check_length(revised.text) or self.curator.replace(before.text, revised.wording)
        if cause is not None:
            tally.lose(Actor.REVISER, cause)
        return cause is None

    def _is_better(self, revised: Draft, tally: Tally) -> bool:
        before = revised.before or revised
        if revised.score > before.score:
            return True
        tally.lose(Actor.REVISER, Drop.NOT_BETTER)
        self.curator.replace(revised.text, before.wording)
        return False

    def _check_length(self, text: str) -> Drop | None:
        return self._check_chat([{"role": "user", "content": text}])

    def _check_chat(self, chat: Sequence[Message]) -> Drop | None:
        return check_length(
            chat[-1]["content"],
            lambda _: self.window.length(chat),
            min_characters=self.context.params.prompts.min_characters,
            max_tokens=self.limit,
        )

    def _cannot_go_on(self) -> bool:
        """Whether the budget of an agent that every draft needs is used up."""
        return any(self.roles[role].exhausted_budget() is not None for role in (Role.AUTHOR, Role.CRITIC))

    def _spent(self) -> dict[Role, tuple[int, int]]:
        return {role: (model.usage.requests, model.usage.tokens) for role, model in self.roles.items()}

    def _settle(self, tally: Tally, before: Mapping[Role, tuple[int, int]]) -> None:
        """Put what the models have spent since `before`, and the budgets that are used up, into the tally."""
        for role, model in self.roles.items():
            requests, tokens = before[role]
            work = tally.of(Actor(role.value))
            work.model = model.version
            work.requests += model.usage.requests - requests
            work.tokens += model.usage.tokens - tokens
            if warning := model.exhausted_budget():
                tally.warnings.append(warning)


def curate(drafts: Sequence[Draft], curator: Curator, check: Callable[[str], Drop | None], tally: Tally) -> list[Draft]:
    """The drafts of the right length that resemble nothing before them; the others are counted."""
    tally.of(Actor.CURATOR).given += len(drafts)
    fresh = []
    for draft in drafts:
        cause = check(draft.text) or curator.admit(draft.wording)
        if cause is None:
            fresh.append(draft)
        else:
            tally.drop(Actor.CURATOR, cause, draft)
    return tally.keep(Actor.CURATOR, fresh)
