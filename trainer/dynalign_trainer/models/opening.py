"""The engine of a stage, however many processes it consists of."""

from collections.abc import Sequence
from typing import Any

from dynalign_contract.config import Policy
from dynalign_contract.phases import Phase
from dynalign_contract.settings import EngineSettings
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.engine_plan import plan_engine
from dynalign_trainer.models.engine_start import import_libraries, prepare_environment
from dynalign_trainer.models.replicated_engine import prepare_processes, start_replicated_engine
from dynalign_trainer.models.vllm_engine import start_vllm_engine
from dynalign_trainer.runtime.context import StageContext


def start_engine(context: StageContext[Any], policies: Sequence[Policy], *, only_reads: bool = False) -> Engine:
    """Start vLLM with the input "model" and these policies; in a rollout once, with those of all its stages.

    `only_reads`: this stage asks for single tokens, so that an engine of its own need not be fast at writing. Raises
    BadInputError when the model or a policy cannot be used, saying which and why.
    """
    session = context.session
    if session is None:
        return _start(context, policies, only_reads=only_reads)
    if session.engine is None:
        session.engine = engine = _start(context, session.policies)
        return engine
    running: Engine = session.engine
    return running.for_stage(context.telemetry)


def prepare_engine(settings: EngineSettings) -> None:
    """Do what takes seconds and needs no model: import the engine's libraries, here or in the engines' processes."""
    prepare_environment()
    if settings.replicas > 1:
        prepare_processes(settings)
        import transformers  # noqa: F401 - the tokenizer is this process's, too
    else:
        import_libraries()


def _start(context: StageContext[Any], policies: Sequence[Policy], *, only_reads: bool = False) -> Engine:
    prepare_environment()
    plan = plan_engine(context, policies, only_reads=only_reads)
    engine: Engine
    if plan.settings.replicas > 1:
        engine = start_replicated_engine(plan, context)
    else:
        engine = start_vllm_engine(plan, context.telemetry)
    context.telemetry.phases.end(Phase.ENGINE)
    return engine
