"""prompts: agents write the training prompts, or the user supplies them; iteration 0 also holds prompts out."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

from dynalign_contract.agents import Role
from dynalign_contract.config import PromptsParams
from dynalign_contract.errors import BadInputError
from dynalign_contract.files import write_bytes
from dynalign_contract.inputs import HISTORY, Input
from dynalign_contract.layout import DRAFTS_FILE, HELD_OUT_FILE, PROMPTS_FILE, YIELD_FILE
from dynalign_contract.metrics import PromptsMetrics
from dynalign_contract.prompt_yield import PromptYield, PromptYields
from dynalign_contract.records import DRAFT, PROMPT, PromptRow, read_rows, write_rows
from dynalign_contract.supplied.files import read_supplied
from dynalign_contract.supplied.paths import supplied_path
from dynalign_trainer.endpoints.journal import JOURNAL_FILE, Journal
from dynalign_trainer.models.chat_model import ChatModel
from dynalign_trainer.models.languages import LanguageFilter
from dynalign_trainer.models.opening import start_engine
from dynalign_trainer.models.quoting import control_tokens, make_delimiters
from dynalign_trainer.models.window import Window, read_window
from dynalign_trainer.prompts.agent_models import LazyModels, ModelSources, resolve_agent_model
from dynalign_trainer.prompts.author import seeded_opening
from dynalign_trainer.prompts.clusters import Clusters, Embed, embed_by_tokens, read_token_vectors, reference_texts
from dynalign_trainer.prompts.critic import Quotation
from dynalign_trainer.prompts.curator import Checks, Curator
from dynalign_trainer.prompts.decontamination import Protected
from dynalign_trainer.prompts.drafts import Tally
from dynalign_trainer.prompts.exchange import open_exchange
from dynalign_trainer.prompts.measuring import measure
from dynalign_trainer.prompts.reviser import require_reviser
from dynalign_trainer.prompts.rows import agent_row, supplied_row
from dynalign_trainer.prompts.shared_model import open_sharing
from dynalign_trainer.prompts.shortage import explain_shortage
from dynalign_trainer.prompts.supplied import Chat, Supply, read_supply
from dynalign_trainer.prompts.task_texts import own_task_texts
from dynalign_trainer.prompts.wording import asked_words, own_words, read_wording
from dynalign_trainer.prompts.writing import PromptRequest, PromptWriter
from dynalign_trainer.runtime.context import StageContext, StageOutput

log = logging.getLogger("dynalign.prompts")


@dataclass(frozen=True)
class PromptSet:
    """The rows of one purpose, and how they came about."""

    purpose: str
    wanted: int
    """Prompts, supplied ones included."""
    rows: list[PromptRow]
    tally: Tally

    @property
    def summary(self) -> PromptYield:
        """For `yield.json`."""
        return PromptYield(purpose=self.purpose, wanted=self.wanted, found=len(self.rows), agents=self.tally.yields())


def run(context: StageContext[PromptsParams]) -> StageOutput[PromptsParams]:
    """Write `prompts.parquet`, and in iteration 0 first `heldout.parquet`, with the drafts and the agents' yield.

    Raises BadInputError, quoting samples, when fewer than `minYield` of the wanted prompts remain.
    """
    settings = context.params.prompts
    supply = read_supply(settings, context.config.seed, context.params.columns)
    writer = open_writer(context)
    total = settings.per_iteration + (settings.held_out if context.iteration == 0 else 0)
    files: dict[str, int] = {}
    sets: list[PromptSet] = []
    if context.iteration == 0:
        sets.append(_hold_out(writer, supply, total))
        held_out = sets[0].rows
        write_rows(context.folder / HELD_OUT_FILE, held_out, PROMPT)
        files[HELD_OUT_FILE] = len(held_out)
    else:
        held_out = read_rows(context.input(Input.HELD_OUT) / HELD_OUT_FILE, PROMPT)
        _remember(writer, held_out)
    writer.curator.protect(own_words(row["messages"], _opening(context.params, row)) for row in held_out)
    _remember(writer, _history(context))
    training = _train(writer, supply, held_out, total)
    sets.append(training)
    write_rows(context.folder / PROMPTS_FILE, training.rows, PROMPT)
    files[PROMPTS_FILE] = len(training.rows)
    files |= _write_lineage(context, sets)
    (context.folder / JOURNAL_FILE).unlink(missing_ok=True)
    open_exchange(context).close()
    metrics = measure(training.rows, training.tally, facets=writer.facets, wanted=settings.per_iteration)
    return StageOutput(files=files, metrics={**metrics, PromptsMetrics.held_out: len(held_out)})


def open_writer(context: StageContext[PromptsParams]) -> PromptWriter:
    """The writer with the curator's memory. The engine is started when the first agent is needed."""
    params = context.params
    settings = params.prompts
    if settings.agents.reviser is not None:
        require_reviser(params.objective)
    window = read_window(context.input(Input.MODEL), context.config.engine.max_length, context.config.chat)
    return PromptWriter(
        context=context,
        roles=LazyModels(lambda: _open_models(context, window)),
        curator=Curator(settings.dedup, _checks(context, window)),
        window=window,
        quotation=Quotation(make_delimiters(context.seed("delimiters"), "drafts"), control_tokens(window.tokenizer)),
    )


def _open_models(context: StageContext[PromptsParams], window: Window) -> dict[Role, ChatModel]:
    params, agents = context.params, context.params.prompts.agents
    engine = start_engine(context, [params.policy]) if agents.need_engine else None
    journal = Journal(context.folder / JOURNAL_FILE)
    sharing, useful = open_sharing(context), context.telemetry.useful.span
    sources = ModelSources(engine, params.policy, window, os.environ, journal, sharing, useful)
    return {role: resolve_agent_model(role, agent, sources) for role, agent in agents.by_role.items()}


def _checks(context: StageContext[PromptsParams], window: Window) -> Checks:
    settings = context.params.prompts
    words = settings.decontamination.words
    benchmarks = Protected(words)
    benchmarks.add(own_task_texts())
    if settings.decontamination.uri is not None:
        field = "prompts.decontamination"
        file = read_supplied(supplied_path(settings.decontamination.uri, field, os.environ), field)
        benchmarks.add(asked_words(chat) for chat in file.chats)
    clusters = settings.dedup.clusters
    return Checks(
        benchmarks=benchmarks,
        held_out=Protected(words),
        languages=LanguageFilter(settings.languages, "prompts.languages") if settings.languages else None,
        clusters=None if clusters is None else Clusters(clusters, _embedding(context, window)),
    )


def _embedding(context: StageContext[PromptsParams], window: Window) -> Embed:
    table = read_token_vectors(context.input(Input.MODEL))
    return embed_by_tokens(window.tokenizer, table, reference_texts(context.params.objective))


def _hold_out(writer: PromptWriter, supply: Supply, total: int) -> PromptSet:
    """The held-out set: supplied prompts first, the rest written by the agents, all remembered by the curator."""
    tally = Tally()
    chats = writer.admit(supply.held_out(), supply.amount.held_out, tally)
    wanted = writer.context.params.prompts.held_out
    order = PromptRequest("heldout", wanted - len(chats), done=len(chats), total=total)
    rows = _fill(writer, order, chats, tally, name="heldout", wanted=wanted)
    return PromptSet("heldout", wanted, _with_columns(writer, supply, rows), tally)


def _train(writer: PromptWriter, supply: Supply, held_out: Sequence[PromptRow], total: int) -> PromptSet:
    iteration, settings = writer.context.iteration, writer.context.params.prompts
    tally = Tally()
    from_user = supply.amount.wanted
    chats = writer.admit(supply.training(held_out, iteration), from_user, tally)
    done = total - settings.per_iteration + len(chats)
    order = PromptRequest("train", settings.per_iteration - from_user, done=done, total=total)
    rows = _fill(writer, order, chats, tally, name=f"{iteration:03d}", wanted=settings.per_iteration)
    return PromptSet("train", settings.per_iteration, _with_columns(writer, supply, rows), tally)


def _fill(
    writer: PromptWriter, order: PromptRequest, chats: Sequence[Chat], tally: Tally, *, name: str, wanted: int
) -> list[PromptRow]:
    """The user's chats, and after them what the agents write. Raises BadInputError when there are too few."""
    drafts = writer.write(order, tally)
    writer.context.telemetry.begin()
    for warning in tally.warnings:
        writer.context.warn(warning)
    rows = [supplied_row(f"{name}-{i:05d}", chat) for i, chat in enumerate(chats)]
    versions = {role.value: model.version for role, model in writer.roles.items()} if drafts else {}
    rows += [agent_row(f"{name}-{i:05d}", draft, versions) for i, draft in enumerate(drafts, start=len(chats))]
    _check_yield(writer.context.params, order, len(rows), wanted, tally)
    return rows


def _with_columns(writer: PromptWriter, supply: Supply, rows: list[PromptRow]) -> list[PromptRow]:
    """The rows with the columns that verifiers read; as they are in a run whose verifiers read none."""
    if not writer.context.params.columns:
        return rows
    return [{**row, "columns": supply.columns_of(row["messages"])} for row in rows]


def _remember(writer: PromptWriter, rows: Sequence[PromptRow]) -> None:
    """Let in everything that earlier iterations, or the held-out set, already have."""
    for row in rows:
        writer.curator.remember(read_wording(row["messages"], _opening(writer.context.params, row)))


def _history(context: StageContext[PromptsParams]) -> list[PromptRow]:
    """The prompts that agents wrote for earlier iterations; the user's own may come back."""
    rows = [row for folder in context.earlier(HISTORY) for row in read_rows(folder / PROMPTS_FILE, PROMPT)]
    return [row for row in rows if row["source"] == "agents"]


def _opening(params: PromptsParams, row: PromptRow) -> str:
    """The beginning that a prompt's seed dictated, which other prompts share by design."""
    return seeded_opening(params.objective, row["facets"])


def _check_yield(params: PromptsParams, order: PromptRequest, found: int, wanted: int, tally: Tally) -> None:
    if found < params.prompts.min_yield * wanted or not found:
        raise BadInputError(explain_shortage(params.prompts, order.purpose, found, wanted, tally))


def _write_lineage(context: StageContext[PromptsParams], sets: Sequence[PromptSet]) -> dict[str, int]:
    """Write what became of every draft, and what each agent yielded; returns the files with their rows."""
    rows = [
        row
        for found in sets
        for row in found.tally.draft_rows({r["draft_id"]: r["prompt_id"] for r in found.rows if r["draft_id"]})
    ]
    write_rows(context.folder / DRAFTS_FILE, rows, DRAFT)
    summary = PromptYields(sets=tuple(found.summary for found in sets))
    write_bytes(context.folder / YIELD_FILE, summary.to_json(indent=2).encode())
    return {DRAFTS_FILE: len(rows), YIELD_FILE: 0}
