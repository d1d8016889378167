"""The objective of a run: one that ships with dynalign, or a ConfigMap of the user's own.

A plan is made again and again, and parsing YAML takes up to a second. So a text is parsed once: what came of it, an
objective or the problems, is kept for the texts that were read last.
"""

from functools import cache, lru_cache
from typing import Final

from dynalign_contract.objective import BUILTIN, Objective, builtin_objective
from dynalign_operator.api.v1alpha1 import ConfigMapKeyRef
from dynalign_operator.planning.errors import BadObjectiveError
from dynalign_operator.planning.observed import Observed
from dynalign_operator.runfile.objective_text import LARGEST_OBJECTIVE_BYTES
from dynalign_operator.runfile.run_file import RunFileError, read_referenced_objective

_KEPT_TEXTS: Final = 64
"""Texts whose objectives are kept; at most 64 KiB each."""


def read_objective(observed: Observed) -> Objective:
    """The run's objective. Raises BadObjectiveError: which line and field, and what to write.

    What stands in the ConfigMap is not repeated. Whoever may create runs and read their status need not be allowed to
    read the ConfigMaps of the namespace, and may name any of them as an objective.
    """
    spec = observed.run.spec.objective
    if spec.config_map_ref is None:
        return _builtin(spec.builtin or BUILTIN[0])
    name = spec.config_map_ref.name
    if name not in observed.config_maps:
        raise BadObjectiveError(
            f"spec.objective.configMapRef names the ConfigMap {name}, which does not exist. Create it with the key "
            f"{spec.config_map_ref.key}; the run goes on by itself."
        )
    data = observed.config_maps[name]
    try:
        text = data.get(spec.config_map_ref.key)
        if text is None or len(text) > LARGEST_OBJECTIVE_BYTES:
            return read_referenced_objective(spec.config_map_ref, data)
        found = parse_once(spec.config_map_ref, text)
    except RunFileError as error:
        found = error
    if isinstance(found, RunFileError):
        sentences = " ".join(problem.bare for problem in found.problems)
        raise BadObjectiveError(f"{sentences} Correct it; the run goes on by itself.")
    return found


@lru_cache(maxsize=_KEPT_TEXTS)
def parse_once(reference: ConfigMapKeyRef, text: str) -> Objective | RunFileError:
    """What the text under this key is, or what is wrong with it. May be called in any thread."""
    try:
        return read_referenced_objective(reference, {reference.key: text})
    except RunFileError as error:
        return error


_builtin = cache(builtin_objective)
