"""The page about tuning names metrics and settings that exist."""

import re
from typing import Any

import pytest
from pydantic import BaseModel

from dynalign_contract.metrics import STAGE_METRICS
from dynalign_operator.api.v1alpha1 import AlignmentRunSpec
from support.pages import ROOT, spans

SPANS = dict.fromkeys(spans(ROOT / "docs/tuning.md"))
METRICS = {name for metrics in STAGE_METRICS.values() for name in (*metrics.singles(), *metrics.families())}
NAMED = [span for span in SPANS if re.fullmatch(r"[a-z]+(_[a-z]+)+", span)]
FIELDS = [
    span for span in SPANS if re.match(r"(model|prompts|generation|judging|training|evaluation)\.[a-zA-Z.]+", span)
]


@pytest.mark.parametrize("name", NAMED)
def test_a_metric_exists(name: str) -> None:
    assert name in METRICS


@pytest.mark.parametrize("span", FIELDS)
def test_a_setting_exists(span: str) -> None:
    model: Any = AlignmentRunSpec
    for part in span.partition(":")[0].split("."):
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        assert part in fields
        found = fields[part].annotation
        nested = [found, *getattr(found, "__args__", ())]
        model = next((kind for kind in nested if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def test_the_page_was_read() -> None:
    assert len(NAMED) > 15
    assert len(FIELDS) > 8
