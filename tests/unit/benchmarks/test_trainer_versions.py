"""The table and the JSON of two checkouts' trainings."""

from benchmarks.trainer_versions import summarise


def training(throughput: float, cpu: float) -> dict[str, float]:
    return {"throughput": throughput, "whole": 2.0, "cpu": cpu, "memory_gib": 3.0}


def test_ratios_are_medians_over_pairs_and_not_ratios_of_medians() -> None:
    pairs = [
        (training(1, 10), training(2, 10)),
        (training(90, 9), training(100, 10)),
        (training(6, 30), training(2, 10)),
    ]
    table, values, ratios = summarise(pairs, [])
    assert ratios == {"throughput": 0.9, "whole": 1.0, "cpu": 1.0, "memory": 1.0}
    assert (values["this_throughput"], values["other_throughput"], values["pairs"]) == (6, 2, 3)
    assert "throughput 0.900" in str(table.caption)
