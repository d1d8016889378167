"""The objective of a run: one that ships with dynalign, or a ConfigMap of the user's own."""

from functools import cache

import yaml
from pydantic import ValidationError

from dynalign_contract.objective import BUILTIN, Objective, builtin_objective, parse_objective
from dynalign_operator.planning.errors import BadObjectiveError
from dynalign_operator.planning.observed import Observed


def read_objective(observed: Observed) -> Objective:
    """The run's objective. Raises BadObjectiveError naming the ConfigMap, the key and the remedy."""
    spec = observed.run.spec.objective
    if spec.config_map_ref is None:
        return _builtin(spec.builtin or BUILTIN[0])
    name, key = spec.config_map_ref.name, spec.config_map_ref.key
    if name not in observed.config_maps:
        raise BadObjectiveError(
            f"spec.objective.configMapRef names the ConfigMap {name}, which does not exist. Create it with the key "
            f"{key}; the run goes on by itself."
        )
    if key not in observed.config_maps[name]:
        raise BadObjectiveError(
            f"the ConfigMap {name} has no key {key}, only {sorted(observed.config_maps[name])}. Add the key, or name "
            "another in spec.objective.configMapRef.key."
        )
    try:
        return parse_objective(observed.config_maps[name][key])
    except (yaml.YAMLError, ValidationError) as error:
        where = _describe(error)
        raise BadObjectiveError(
            f"the ConfigMap {name}, key {key}, is no objective: {where}. Correct it; the run goes on by itself."
        ) from error


_builtin = cache(builtin_objective)


def _describe(error: yaml.YAMLError | ValidationError) -> str:
    if isinstance(error, yaml.YAMLError):
        return " ".join(str(error).split())
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"{field}: {first['msg']}" if field else first["msg"]
