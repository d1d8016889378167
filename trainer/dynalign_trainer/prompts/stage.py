"""prompts: agents write the training prompts, or the user supplies them; iteration 0 also holds prompts out."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from dynalign_contract.config import Policy, PromptsParams
from dynalign_contract.errors import BadInputError
from dynalign_contract.layout import HELD_OUT_FILE, PROMPTS_FILE
from dynalign_contract.records import PROMPT, Row, read_rows, write_rows
from dynalign_trainer.context import StageContext, StageOutput
from dynalign_trainer.engine import Message, start_engine
from dynalign_trainer.prompts.curator import Curator, remember_all
from dynalign_trainer.prompts.drafts import Draft, Drop, Tally
from dynalign_trainer.prompts.seeds import facet_coverage, merge_facets
from dynalign_trainer.prompts.supplied import read_supplied, supplied_path, take_slice
from dynalign_trainer.prompts.writing import Order, PromptWriter, agent_policy
from dynalign_trainer.text_statistics import distinct_n

_HELD_OUT_SHARE = 0.2
"""Most of the user's prompts that are held out; the agents write the rest of the held-out set."""

Chat = tuple[Message, ...]


@dataclass(frozen=True)
class Supply:
    """The user's prompts, split once and for all."""

    held_out: tuple[Chat, ...] = ()
    training: tuple[Chat, ...] = ()


def run(context: StageContext[PromptsParams]) -> StageOutput:
    """Write `prompts.parquet`, and in iteration 0 first `heldout.parquet`.

    Raises BadInputError, quoting samples, when fewer than `minYield` of the wanted prompts remain.
    """
    settings = context.params.prompts
    supply = read_supply(context.params, context.config.seed)
    curator = Curator(settings.dedup)
    writer = PromptWriter(context, start_engine(context, [context.params.policy]), curator)
    total = settings.per_iteration + (settings.held_out if context.iteration == 0 else 0)
    files = {}
    if context.iteration == 0:
        held_out = _hold_out(writer, supply, total)
        write_rows(context.folder / HELD_OUT_FILE, held_out, PROMPT)
        files[HELD_OUT_FILE] = len(held_out)
    else:
        held_out = read_rows(context.input("heldout") / HELD_OUT_FILE, PROMPT)
        remember_all(curator, map(_text, held_out))
    remember_all(curator, _history(context))
    tally = Tally()
    rows = _train(writer, supply, tally, total)
    write_rows(context.folder / PROMPTS_FILE, rows, PROMPT)
    files[PROMPTS_FILE] = len(rows)
    return StageOutput(files=files, metrics=_metrics(context.params, rows, len(held_out), tally))


def read_supply(params: PromptsParams, seed: int) -> Supply:
    """The user's prompts, if any: a share of the file is held out, the same one in every iteration."""
    supplied = params.prompts.supplied
    if supplied is None:
        return Supply()
    chats = read_supplied(supplied_path(supplied.uri))
    order = random.Random(f"held-out {seed}").sample(range(len(chats)), len(chats))  # noqa: S311 - no secret
    count = min(round(supplied.share * params.prompts.held_out), int(_HELD_OUT_SHARE * len(chats)))
    return Supply(
        held_out=tuple(chats[i] for i in order[:count]), training=tuple(chats[i] for i in sorted(order[count:]))
    )


def _hold_out(writer: PromptWriter, supply: Supply, total: int) -> list[Row]:
    """The held-out rows: supplied ones first, the rest written by the base model, all remembered by the curator."""
    params = writer.context.params
    wanted = params.prompts.held_out
    tally = Tally()
    chats = writer.admit(supply.held_out, tally)
    order = Order("heldout", wanted - len(chats), Policy(), Policy(), done=len(chats), total=total)
    drafts = writer.write(order, tally)
    rows = [_supplied_row(f"heldout-{i:05d}", chat) for i, chat in enumerate(chats)]
    rows += [_row(f"heldout-{i:05d}", draft, order) for i, draft in enumerate(drafts, start=len(chats))]
    _check_yield(params, "held-out", len(rows), wanted, tally)
    return rows


def _train(writer: PromptWriter, supply: Supply, tally: Tally, total: int) -> list[Row]:
    context, params = writer.context, writer.context.params
    settings = params.prompts
    share = settings.supplied.share if settings.supplied is not None else 0.0
    from_user = round(share * settings.per_iteration)
    rng = random.Random(f"supplied {context.config.seed}")  # noqa: S311 - no secret
    taken = take_slice(supply.training, from_user, context.iteration, rng)
    chats = writer.admit(taken, tally)
    order = Order(
        "train",
        settings.per_iteration - from_user,
        author=agent_policy(settings.agents.author.model, params.policy),
        critic=agent_policy(settings.agents.critic.model, params.policy),
        done=total - settings.per_iteration + len(chats),
        total=total,
    )
    drafts = writer.write(order, tally)
    name = f"{context.iteration:03d}"
    rows = [_supplied_row(f"{name}-{i:05d}", chat) for i, chat in enumerate(chats)]
    rows += [_row(f"{name}-{i:05d}", draft, order) for i, draft in enumerate(drafts, start=len(chats))]
    _check_yield(params, "training", len(rows), settings.per_iteration, tally)
    return rows


def _history(context: StageContext[PromptsParams]) -> list[str]:
    """Texts of the prompts that agents wrote for earlier iterations; the user's own may come back."""
    names = sorted(name for name in context.inputs if name.startswith("history-"))
    rows = [row for name in names for row in read_rows(context.input(name) / PROMPTS_FILE, PROMPT)]
    return [_text(row) for row in rows if row["source"] == "agents"]


def _check_yield(params: PromptsParams, kind: str, found: int, wanted: int, tally: Tally) -> None:
    if found < params.prompts.min_yield * wanted or not found:
        raise BadInputError(
            f"only {found} of {wanted} {kind} prompts remain, less than prompts.minYield {params.prompts.min_yield} "
            f"allows; {tally.explain()}. Raise prompts.agents.author.draftsPerPrompt or maxTokens, lower "
            "prompts.agents.critic.minScore, give more prompts.seeds.facets, or supply prompts of your own."
        )


def _metrics(params: PromptsParams, rows: Sequence[Row], held_out: int, tally: Tally) -> dict[str, float | None]:
    scores = [row["critic_score"] for row in rows if math.isfinite(row["critic_score"])]
    facets = merge_facets(params.objective.facets, params.prompts.seeds.facets)
    seeds = [row["facets"] for row in rows if row["source"] == "agents"]
    return {
        "prompts": len(rows),
        "held_out": held_out,
        "yield": len(rows) / params.prompts.per_iteration,
        "critic_mean": math.fsum(scores) / len(scores) if scores else None,
        "drafts": tally.drafts,
        "duplicate_share": tally.share(Drop.DUPLICATE),
        "near_duplicate_share": tally.share(Drop.NEAR_DUPLICATE),
        "unfinished_share": tally.share(Drop.UNFINISHED),
        "too_long_share": tally.share(Drop.LONG),
        "too_short_share": tally.share(Drop.SHORT),
        "low_score_share": tally.share(Drop.LOW_SCORE),
        "distinct_2": distinct_n(map(_text, rows), 2),
        "facet_coverage": facet_coverage(facets, seeds) if seeds else None,
        "tokens": tally.tokens,
    }


def _text(row: Row) -> str:
    return "\n".join(message["content"] for message in row["messages"])


def _row(prompt_id: str, draft: Draft, order: Order) -> Row:
    return {
        "prompt_id": prompt_id,
        "messages": [{"role": "user", "content": draft.text}],
        "source": "agents",
        "facets": draft.seed,
        "critic_score": draft.score,
        "agents": {"author": order.author.version, "critic": order.critic.version},
    }


def _supplied_row(prompt_id: str, chat: Chat) -> Row:
    return {
        "prompt_id": prompt_id,
        "messages": list(chat),
        "source": "supplied",
        "facets": {},
        "critic_score": math.nan,
        "agents": {},
    }
