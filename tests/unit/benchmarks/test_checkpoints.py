"""What `make bench-checkpoints` makes of its measurements."""

from benchmarks.checkpoints import Seen, summarise


def test_the_most_that_a_kill_has_cost_is_held_against_the_limit() -> None:
    seen = Seen(saved=[4.0, 8.0, 6.0], lost=[3.0, 27.0, 12.0], resumed=[20.0, 30.0], gib=6.0, most_gib=18.0)
    _, values, ratios = summarise(seen, weights=460_000_000, limit=30.0)
    assert ratios == {"lost": 0.9}
    assert (values["save_seconds"], values["resume_seconds"], values["lost_seconds"]) == (6.0, 25.0, 27.0)
