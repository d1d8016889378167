"""The runbook knows every reason that a condition or an event can have, and what to do about each that stops a run."""

import re
from pathlib import Path

from dynalign_operator.planning import reasons

RUNBOOK = (Path(__file__).parents[3] / "docs" / "runbook.md").read_text()
SECTIONS = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##)", RUNBOOK, re.MULTILINE | re.DOTALL))


def test_every_reason_is_explained() -> None:
    values = {value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)}
    assert len(values) > 25
    assert sorted(value for value in values if f"`{value}`" not in RUNBOOK) == []


def test_every_reason_that_stops_a_run_has_its_cause_how_to_see_it_and_what_to_do() -> None:
    assert len(SECTIONS) >= 14
    for reason, text in SECTIONS.items():
        assert "**Cause**: " in text, reason
        assert "**See" in text, reason
        assert re.search(r"\*\*(Do|See and do)\*\*: ", text), reason
        assert "kubectl" in text or "the message" in text, reason


def test_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", RUNBOOK, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", RUNBOOK)) <= anchors
