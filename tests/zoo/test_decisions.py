"""Every family is decided by the preflight, and the table, of which docs/models.md is made, says what it decides."""

from pathlib import Path

import pytest

from dynalign_contract.settings import Quantized
from support.preflight_runs import a_preflight, fetch, refusal
from zoo.decisions import decide
from zoo.families import Family, Passes, Refused, Thoughts
from zoo.table import FAMILIES, QUANTISED, REFUSED


def by_name(family: Family) -> str:
    return family.name


@pytest.mark.parametrize("family", FAMILIES, ids=by_name)
def test_the_preflight_decides_what_the_table_says(family: Family, tmp_path: Path) -> None:
    quantized = Quantized.REFUSE if family.quantiser is None else Quantized.DEQUANTIZE
    found = decide(family.write(tmp_path), quantized)
    if isinstance(family.decision, Refused):
        assert isinstance(found, Refused), found
        assert family.decision.sentence in found.sentence
    else:
        assert found == family.decision


@pytest.mark.parametrize("family", REFUSED, ids=by_name)
def test_fetch_refuses_before_it_brings_weights(family: Family, tmp_path: Path) -> None:
    assert isinstance(family.decision, Refused)
    model = family.write(tmp_path / "source")
    assert family.decision.sentence in refusal(fetch(model, a_preflight(), tmp_path / "root"), tmp_path / "root")


@pytest.mark.parametrize("family", QUANTISED, ids=by_name)
def test_fetch_refuses_quantised_weights_where_the_run_does_not_say_what_to_do(family: Family, tmp_path: Path) -> None:
    assert family.quantiser is not None
    model = family.write(tmp_path / "source")
    said = refusal(fetch(model, a_preflight(), tmp_path / "root"), tmp_path / "root")
    assert (
        f"config.json has a quantization_config ({family.quantiser.method}). Quantised weights can be neither" in said
    )
    assert ("Write spec.model.quantized: Dequantize" in said) == isinstance(family.decision, Passes)


def test_the_zoo_is_large_and_of_many_kinds() -> None:
    assert len({family.model.family for family in FAMILIES}) >= 24
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    passing = [family.decision for family in FAMILIES if isinstance(family.decision, Passes)]
    assert {decision.thoughts for decision in passing} == set(Thoughts)
    assert {bool(decision.obstacle) for decision in passing} == {bool(decision.renamed) for decision in passing}
