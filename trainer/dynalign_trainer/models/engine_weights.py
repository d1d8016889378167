"""One engine for several policies: adapters on a GPU, exchanged weights on a CPU and for whole models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from dynalign_contract.config import Policy
from dynalign_contract.errors import BadConfigError, BadInputError
from dynalign_trainer.models.merging import check_fit, load_trained_weights, merged_tensors, read_adapter
from dynalign_trainer.runtime.machine import count_gpus


class PolicyWeights(Protocol):
    """Selects the policy whose weights the engine uses."""

    def activate(self, policy: Policy) -> Any:
        """Prepare the engine for requests of this policy; returns vLLM's LoRARequest, or None if none is needed.

        Raises BadConfigError for a policy that the engine was not started with.
        """
        ...


class AdapterWeights:
    """Adapters beside the base model; requests of several policies can share a batch."""

    def __init__(self, llm: Any, base: Path, folders: Mapping[str, Path]) -> None:
        """Load every adapter at once, so that one that does not fit is found before any work is done."""
        from vllm.lora.request import LoRARequest

        self._requests = {}
        for number, (version, folder) in enumerate(folders.items(), start=1):
            check_fit(read_adapter(folder), base)  # vLLM passes over tensors that it does not know
            request = LoRARequest(version, number, str(folder))
            try:
                llm.llm_engine.add_lora(request)
            except Exception as error:  # a mismatch surfaces as whatever the workers' tensors raise
                raise BadInputError(
                    f"the adapter {version} in {folder} does not fit the model ({summary(error)}). It was trained on "
                    "another model or with modules that vLLM cannot adapt: remove the iteration's policy folder to "
                    "have it trained again, or change training.lora.targetModules."
                ) from error
            self._requests[version] = request

    def activate(self, policy: Policy) -> Any:
        """The policy's LoRARequest; None for the base model."""
        return None if policy.adapter is None else _look_up(self._requests, policy)


class MergedWeights:
    """One set of weights at a time, merged in memory and given to the engine when the policy changes.

    vLLM's adapter kernels are written for GPUs: on a CPU with AVX2, SmolLM2-135M reads 76 prompt tokens a second with
    a rank-16 adapter and 566 without. Exchanging its weights takes about a second.
    """

    def __init__(self, llm: Any, base: Path, folders: Mapping[str, Path]) -> None:
        """Read every adapter at once, so that one that cannot be read is found before any work is done."""
        self._llm = llm
        self._base = base
        self._adapters = {version: read_adapter(folder) for version, folder in folders.items()}
        for adapter in self._adapters.values():
            check_fit(adapter, base)
        self._active = Policy().version

    def activate(self, policy: Policy) -> None:
        """Load the policy's weights unless they are active."""
        adapter = None if policy.adapter is None else _look_up(self._adapters, policy)
        if policy.version != self._active:
            _reload(self._llm, weights_iterator=merged_tensors(self._base, adapter))
            self._active = policy.version


class StoredWeights:
    """One set of weights at a time, read by the engine's processes from the policy's folder when it is first asked for.

    The engine has started with random weights: the base model's would be read to be replaced. Nor does it start in the
    policy's folder, whose path is another one in every iteration and part of the key of vLLM's compiled code.
    """

    def __init__(self, llm: Any, base: Path, folders: Mapping[str, Path]) -> None:
        """Open every policy at once, so that one that cannot be read is found before any work is done."""
        self._llm = llm
        self._folders = {Policy().version: base, **folders}
        for folder in folders.values():
            check_fit(load_trained_weights(folder), base)
        llm.collective_rpc("update_config", args=({"load_config": {"load_format": "auto"}},))
        self._active: str | None = None

    def activate(self, policy: Policy) -> None:
        """Load the policy's weights unless they are active."""
        folder = _look_up(self._folders, policy)
        if policy.version != self._active:
            _reload(self._llm, weights_path=str(folder))
            self._active = policy.version


class BaseWeights:
    """The base model's, with which the engine has started, and no others."""

    def activate(self, policy: Policy) -> None:
        """Do nothing for the base model."""
        _look_up({Policy().version: None}, policy)


def _reload(llm: Any, **source: Any) -> None:
    """Replace the weights of the running engine."""
    llm.collective_rpc("reload_weights", kwargs=source)
    if not count_gpus():
        llm.apply_model(_repack_head)
    llm.reset_prefix_cache()


def _repack_head(model: Any) -> None:
    """Have a head that shares the embedding's weight see the new one.

    On a CPU vLLM 0.31 computes with a packed copy of it, which `reload_weights` makes anew for all layers that it hands
    a weight; to this one it hands none.
    """
    head = getattr(model, "lm_head", None)
    method = getattr(head, "quant_method", None)
    if method is not None:
        method.process_weights_after_loading(head)


def summary(error: Exception) -> str:
    """An exception's message in one line of bounded length."""
    return " ".join(str(error).split())[:500] or type(error).__name__


def _look_up(loaded: Mapping[str, Any], policy: Policy) -> Any:
    if policy.version not in loaded:
        raise BadConfigError(
            f"policy {policy.version} was not loaded; the engine was started with {sorted(loaded) or 'the base model'}"
        )
    return loaded[policy.version]
