"""What `make bench-sampling` makes of its measurements."""

import pytest

from benchmarks.sampling import Pairs, summarise


def test_ratios_are_medians_by_tokens_and_the_ideal_is_what_both_shards_can_do() -> None:
    pairs = Pairs(bare=[10.0, 12.0, 11.0], generate=[11.0, 12.0, 11.0], tokens=(1000, 990))
    _, values, ratios = summarise(pairs, {"one": [50.0, 60.0, 40.0], "two": [26.0, 25.0, 24.0], "slow": [44.0, 40.0]})
    assert ratios["bare"] == pytest.approx(0.99, abs=1e-3)
    assert ratios["two"] == 2
    assert values["ideal_seconds"] == 40, "a second of one shard and a quarter of the other"
    assert ratios["slow"] == pytest.approx(42 / 40)
