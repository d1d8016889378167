"""Where and with what the stages' pods run."""

from typing import Final

from dynalign_operator.api.quantities import parse_quantity
from dynalign_operator.api.rules.rule import Rule

POD_RULES: Final = (
    Rule(
        at="spec.stages.*.resources",
        field="requests",
        cel="self.requests.all(k, !(k in self.limits) || "
        "quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",
        message="asks for more than limits allows; lower the request or raise the limit",
        holds=lambda resources: all(
            parse_quantity(amount) <= parse_quantity(resources.limits[name])
            for name, amount in resources.requests.items()
            if name in resources.limits
        ),
    ),
    Rule(
        at="spec.stages.*.tolerations[]",
        field="value",
        cel="self.operator != 'Exists' || !has(self.value)",
        message="must be absent with operator: Exists; remove it, or write operator: Equal",
        holds=lambda toleration: toleration.operator != "Exists" or toleration.value is None,
    ),
    Rule(
        at="spec.stages.*.tolerations[]",
        field="key",
        cel="has(self.key) || self.operator == 'Exists'",
        message="is missing; name a taint's key, or write operator: Exists to put up with every taint",
        holds=lambda toleration: toleration.key is not None or toleration.operator == "Exists",
    ),
    Rule(
        at="spec.stages.*.tolerations[]",
        field="tolerationSeconds",
        cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        message="has an effect with effect: NoExecute only; set the effect, or remove it",
        holds=lambda toleration: toleration.toleration_seconds is None or toleration.effect == "NoExecute",
    ),
)
