"""What an engine is to be started with: found and checked once, whoever starts it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynalign_contract.config import BASE_POLICY, Policy
from dynalign_contract.errors import BadConfigError
from dynalign_contract.inputs import Input
from dynalign_contract.settings import ChatSettings, EngineSettings
from dynalign_trainer.models.engine_start import Lora
from dynalign_trainer.models.folder import adapter_rank, check_weights, context_window
from dynalign_trainer.models.merging import is_adapter
from dynalign_trainer.runtime.context import StageContext


@dataclass(frozen=True)
class EnginePlan:
    """How an engine starts."""

    model: Path
    """Folder of the base model."""
    settings: EngineSettings
    chat: ChatSettings
    max_length: int
    """Context window in tokens."""
    policies: Mapping[str, Path]
    """Version -> folder, of the policies beside the base model: adapters, or whole models."""
    lora: Lora | None
    """Room for the policies that are adapters; None where none is."""
    only_reads: bool
    """The engine is asked for single tokens, so it need not be fast at writing."""

    @property
    def begins_with_base(self) -> bool:
        """Whether the base model's weights are the first ones; whole models take their place before any use."""
        return self.lora is not None or not self.policies


def plan_engine(context: StageContext[Any], policies: Sequence[Policy], *, only_reads: bool = False) -> EnginePlan:
    """Plan an engine with the input "model" and these policies.

    Raises BadInputError when the model or an adapter cannot be used, BadConfigError for policies that do not go
    together.
    """
    folder = context.input(Input.MODEL)
    check_weights(folder)
    settings = context.config.engine
    max_length = context_window(folder, settings.max_length)
    found = {policy.version: context.policy_folder(policy) for policy in policies}
    paths = {version: path for version, path in found.items() if path is not None}
    if BASE_POLICY in paths:
        raise BadConfigError(f"the policy {BASE_POLICY!r} has an adapter; give it the version of its iteration")
    adapters = [path for path in paths.values() if is_adapter(path)]
    if adapters and len(adapters) < len(paths):
        raise BadConfigError(
            "some of the policies are adapters and some are whole models. spec.training.method cannot change within a "
            "run: set it back, or start a new run."
        )
    lora = Lora(max_rank=adapter_rank(adapters), count=len(adapters)) if adapters else None
    return EnginePlan(folder, settings, context.config.chat, max_length, paths, lora, only_reads)
