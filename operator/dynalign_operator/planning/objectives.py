"""The objective of a run: one that ships with dynalign, or a ConfigMap of the user's own."""

from functools import cache

from dynalign_contract.objective import BUILTIN, Objective, builtin_objective
from dynalign_operator.api.run_file import RunFileError, read_referenced_objective
from dynalign_operator.planning.errors import BadObjectiveError
from dynalign_operator.planning.observed import Observed


def read_objective(observed: Observed) -> Objective:
    """The run's objective. Raises BadObjectiveError, in the words of `dynalign validate`, with the remedy."""
    spec = observed.run.spec.objective
    if spec.config_map_ref is None:
        return _builtin(spec.builtin or BUILTIN[0])
    name = spec.config_map_ref.name
    if name not in observed.config_maps:
        raise BadObjectiveError(
            f"spec.objective.configMapRef names the ConfigMap {name}, which does not exist. Create it with the key "
            f"{spec.config_map_ref.key}; the run goes on by itself."
        )
    try:
        return read_referenced_objective(spec.config_map_ref, observed.config_maps[name])
    except RunFileError as error:
        sentences = " ".join(problem.text for problem in error.problems)
        raise BadObjectiveError(f"{sentences} Correct it; the run goes on by itself.") from error


_builtin = cache(builtin_objective)
