"""Win rates and capability."""

from typing import Final

from dynalign_contract.settings import OWN_TASK_PREFIX, OWN_TASKS, CapabilitySettings, EvaluationJudge
from dynalign_operator.api.rules.rule import Rule

_DEFAULT_CAPABILITY: Final = CapabilitySettings()

EVALUATION_RULES: Final = (
    Rule(
        at="spec.evaluation.winRate",
        field="judges",
        cel="self.judges.all(x, self.judges.exists_one(y, x == y))",
        message="names a judge twice; name each once",
        holds=lambda win_rate: len(set(win_rate.judges)) == len(win_rate.judges),
    ),
    Rule(
        at="spec.evaluation.winRate",
        field="endpoint",
        cel="!('Endpoint' in self.judges) || has(self.endpoint)",
        message="is missing with Endpoint among the judges; give it a url and a model, or take Endpoint out of judges",
        holds=lambda win_rate: EvaluationJudge.ENDPOINT not in win_rate.judges or win_rate.endpoint is not None,
    ),
    Rule(
        at="spec.evaluation.winRate",
        field="endpoint",
        cel="'Endpoint' in self.judges || !has(self.endpoint)",
        message="has an effect with Endpoint among the judges only; add Endpoint to judges, or remove endpoint",
        holds=lambda win_rate: EvaluationJudge.ENDPOINT in win_rate.judges or win_rate.endpoint is None,
    ),
    Rule(
        at="spec.evaluation.capability",
        field="tasks",
        cel="self.tasks.all(x, self.tasks.exists_one(y, x == y))",
        message="names a task twice; name each once",
        holds=lambda capability: len(set(capability.tasks)) == len(capability.tasks),
    ),
    Rule(
        at="spec.evaluation.capability",
        field="tasks",
        cel=f"self.tasks.all(x, !x.startsWith('{OWN_TASK_PREFIX}') || x in ["
        + ", ".join(f"'{name}'" for name in OWN_TASKS)
        + "])",
        message=f"names none of dynalign's own tasks, {' and '.join(OWN_TASKS)}; write one of these, or one of "
        "lm-evaluation-harness",
        holds=lambda capability: all(
            name in OWN_TASKS for name in capability.tasks if name.startswith(OWN_TASK_PREFIX)
        ),
    ),
    Rule(
        at="spec.evaluation.capability",
        field="limit",
        cel="!has(self.limit) || size(self.tasks) > 0",
        message="has an effect with tasks only; name tasks, for example dynalign_choices, or remove limit",
        holds=lambda capability: capability.limit is None or bool(capability.tasks),
    ),
    Rule(
        at="spec.evaluation.capability",
        field="maxDrop",
        cel=f"self.maxDrop == {_DEFAULT_CAPABILITY.max_drop} || size(self.tasks) > 0",
        message="gates nothing without tasks; name tasks, for example dynalign_choices, or remove maxDrop",
        holds=lambda capability: capability.max_drop == _DEFAULT_CAPABILITY.max_drop or bool(capability.tasks),
    ),
)
