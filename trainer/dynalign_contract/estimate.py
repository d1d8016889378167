"""A measured value with its confidence interval."""

from pydantic import Field, model_validator

from dynalign_contract.base import Model


class Estimate(Model):
    """A value and its confidence interval."""

    value: float = Field(allow_inf_nan=False)
    """The value itself."""
    low: float | None = Field(default=None, allow_inf_nan=False)
    """Lower end of its confidence interval; absent if there is none."""
    high: float | None = Field(default=None, allow_inf_nan=False)
    """Upper end of its confidence interval; absent if there is none."""

    @model_validator(mode="before")
    @classmethod
    def _accept_number(cls, data: object) -> object:
        """Version 0.1.0 stored the value alone."""
        return {"value": data} if isinstance(data, int | float) else data

    def is_below(self, limit: float) -> bool:
        """Whether the whole interval lies below `limit`; False without an interval."""
        return self.high is not None and self.high < limit

    def text(self, format_spec: str = ".3f", separator: str = " to ") -> str:
        """`0.556 (0.430 to 0.690)`; the value alone without an interval. `format_spec` is that of one number."""
        value = format(self.value, format_spec)
        if self.low is None or self.high is None:
            return value
        return f"{value} ({self.low:{format_spec}}{separator}{self.high:{format_spec}})"
