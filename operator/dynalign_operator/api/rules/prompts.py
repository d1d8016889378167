"""The training prompts and the agents that write them."""

from typing import Final

from dynalign_contract.agents import AgentModel
from dynalign_contract.supplied.files import SUFFIXES
from dynalign_operator.api.rules.rule import Rule

_IS_READABLE: Final = " || ".join(f"self.uri.endsWith('{suffix}')" for suffix in SUFFIXES)

PROMPT_RULES: Final = (
    Rule(
        at="spec.prompts.supplied",
        field="uri",
        cel=_IS_READABLE,
        message="must name a file that ends in .jsonl, .json or .parquet",
        holds=lambda supplied: supplied.uri.endswith(SUFFIXES),
    ),
    Rule(
        at="spec.prompts.decontamination",
        field="uri",
        cel=f"!has(self.uri) || {_IS_READABLE}",
        message="must name a file that ends in .jsonl, .json or .parquet",
        holds=lambda found: found.uri is None or found.uri.endswith(SUFFIXES),
    ),
    Rule(
        at="spec.prompts.decontamination",
        field="uri",
        cel="!has(self.uri) || self.words > 0",
        message="has an effect only when words is more than 0; raise words, or remove uri",
        holds=lambda found: found.uri is None or found.words > 0,
    ),
    Rule(
        at="spec.prompts",
        field="languages",
        cel="self.languages.all(x, self.languages.exists_one(y, x == y))",
        message="names a language twice; name each once",
        holds=lambda prompts: len(set(prompts.languages)) == len(prompts.languages),
    ),
    Rule(
        at="spec.prompts.agents.*",
        field="endpoint",
        cel="self.model != 'Endpoint' || has(self.endpoint)",
        message="is missing with model: Endpoint; give it a url and a model, or write model: Policy",
        holds=lambda agent: agent.model is not AgentModel.ENDPOINT or agent.endpoint is not None,
    ),
    Rule(
        at="spec.prompts.agents.*",
        field="endpoint",
        cel="self.model == 'Endpoint' || !has(self.endpoint)",
        message="has an effect with model: Endpoint only; set model to Endpoint, or remove endpoint",
        holds=lambda agent: agent.model is AgentModel.ENDPOINT or agent.endpoint is None,
    ),
    Rule(
        at="spec.prompts.agents.reviser",
        field="reviseFrom",
        cel="self.reviseFrom < self.reviseBelow",
        message="is not below reviseBelow, so no draft would be revised; lower it, or raise reviseBelow",
        holds=lambda reviser: reviser.revise_from < reviser.revise_below,
    ),
    Rule(
        at="spec.prompts.agents",
        field="critic.minScore",
        cel="!has(self.reviser) || self.critic.minScore <= self.reviser.reviseBelow",
        message="is above reviser.reviseBelow, so drafts between the two would be dropped without being revised; lower "
        "it, or raise reviser.reviseBelow",
        holds=lambda agents: agents.reviser is None or agents.critic.min_score <= agents.reviser.revise_below,
    ),
)
