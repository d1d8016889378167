"""What may be spent at an endpoint, and what has been."""

from dataclasses import dataclass

from dynalign_contract.endpoints import EndpointBudget


@dataclass
class Spending:
    """Counts what is spent in one stage."""

    requests: int = 0
    tokens: int = 0
    """Read and written."""


@dataclass
class Purse:
    """A budget with what has been spent of it."""

    budget: EndpointBudget
    field: str
    """The run file's field that holds the endpoint, for messages."""
    spending: Spending

    def take_request(self) -> bool:
        """Count one request; False, and nothing is counted, when the budget is used up."""
        if self.used_up() is not None:
            return False
        self.spending.requests += 1
        return True

    def used_up(self) -> str | None:
        """Which budget is used up, and what to do, as a clause; None while there is something left."""
        for name, limit, spent in (
            ("requests", self.budget.requests, self.spending.requests),
            ("tokens", self.budget.tokens, self.spending.tokens),
        ):
            if limit is not None and spent >= limit:
                return f"{self.field}.budget.{name} of {limit:,} is used up ({spent:,} spent); raise it"
        return None
