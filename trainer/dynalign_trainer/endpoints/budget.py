"""The budget of an endpoint, and what has been spent of it."""

from dataclasses import dataclass

from dynalign_contract.endpoints import EndpointBudget, EndpointSettings, RequestBudget
from dynalign_trainer.models.chat_model import Usage


@dataclass
class BudgetTracker:
    """A budget with the usage that counts against it."""

    budget: RequestBudget
    field: str
    """The run file's field that holds the endpoint, for messages."""
    usage: Usage

    def take_request(self) -> bool:
        """Count one request; False, and nothing is counted, when the budget is exhausted."""
        if self.exhausted_message() is not None:
            return False
        self.usage.requests += 1
        return True

    def exhausted_message(self) -> str | None:
        """Which budget is exhausted, and what to do, as a clause; None while something is left."""
        tokens = self.budget.tokens if isinstance(self.budget, EndpointBudget) else None
        for name, limit, spent in (
            ("requests", self.budget.requests, self.usage.requests),
            ("tokens", tokens, self.usage.tokens),
        ):
            if limit is not None and spent >= limit:
                return f"{self.field}.budget.{name} of {limit:,} is used up ({spent:,} spent); raise it"
        return None


def share_of(endpoint: EndpointSettings, shards: int) -> EndpointSettings:
    """The endpoint with one shard's part of its budget, rounded up."""
    parts = {name: None if limit is None else -(-limit // shards) for name, limit in endpoint.budget}
    return endpoint.model_copy(update={"budget": EndpointBudget(**parts)})
