"""The runbook knows every reason that a condition or an event can have."""

from pathlib import Path

from dynalign_operator.planning import reasons

RUNBOOK = (Path(__file__).parents[3] / "docs" / "runbook.md").read_text()


def test_every_reason_is_explained() -> None:
    values = {value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)}
    assert len(values) > 25
    assert sorted(value for value in values if f"`{value}`" not in RUNBOOK) == []
