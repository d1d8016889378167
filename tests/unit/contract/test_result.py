"""A StageResult fits into a termination message, whatever it has to say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.metrics import STAGE_METRICS
from dynalign_contract.result import (
    MAX_RESULT_BYTES,
    MAX_WARNING_LENGTH,
    MAX_WARNINGS,
    MEMBER_SEPARATOR,
    WARNINGS,
    ArtifactRef,
    Metric,
    Outcome,
    ResultError,
    StageResult,
)
from dynalign_contract.settings import TrainingBackend
from dynalign_contract.settings.judges import MAX_JUDGES
from dynalign_contract.settings.rewards import MAX_REWARDS
from dynalign_contract.stages import Stage
from dynalign_contract.training_choice import TrainingChoice

ARTIFACT = ArtifactRef(path="iterations/000/rollouts", digest="sha256:" + "a" * 64, bytes=12, rows=3)


@given(
    message=st.text(max_size=6000),
    metrics=st.lists(
        st.tuples(st.text(min_size=1, max_size=64), st.floats(allow_nan=False, allow_infinity=False)), max_size=120
    ),
    warnings=st.lists(st.text(max_size=MAX_WARNING_LENGTH), max_size=MAX_WARNINGS),
    modules=st.lists(st.text(min_size=1, max_size=128), max_size=64),
)
def test_every_result_fits_and_keeps_its_artifact(
    message: str, metrics: list[tuple[str, float]], warnings: list[str], modules: list[str]
) -> None:
    result = StageResult(
        outcome=Outcome.FAILED,
        exit_code=11,
        error=ResultError(reason="BadInput", message=message),
        artifact=ARTIFACT,
        metrics=tuple(Metric(name=name, value=value) for name, value in metrics),
        warnings=tuple(warnings),
        training=TrainingChoice(backend=TrainingBackend.TRL, target_modules=tuple(modules)),
    )
    data = result.encode()
    back = StageResult.decode(data)
    assert len(data) <= MAX_RESULT_BYTES
    assert (back.artifact, back.exit_code) == (ARTIFACT, 11)
    if len(result.to_json().encode()) <= MAX_RESULT_BYTES:
        assert back == result
    assert len(back.metrics) == len(metrics) or back.omitted, "what is left out is named"
    assert len(back.warnings) == len(warnings) or WARNINGS in back.omitted
    left = [metric.name for metric in result.metrics if _family(metric.name) not in back.omitted]
    assert [metric.name for metric in back.metrics] == left[: len(back.metrics)]
    assert not back.metrics or back.training == result.training, "metrics go before the choice of training"
    assert not any(_family(metric.name) for metric in back.metrics) or len(back.warnings) == len(warnings)


def test_metrics_go_before_the_message() -> None:
    metrics = tuple(Metric(name=f"m{i}", value=1.0) for i in range(300))
    result = StageResult(outcome=Outcome.FAILED, error=ResultError(reason="R", message="why"), metrics=metrics)
    back = StageResult.decode(result.encode())
    assert back.error == result.error
    assert 0 < len(back.metrics) < 300


def test_what_fits_is_told_to_the_last_digit() -> None:
    result = StageResult(outcome=Outcome.SUCCEEDED, metrics=(Metric(name="reward", value=0.1234567890123456),))
    assert StageResult.decode(result.encode()) == result


MEMBERS = {
    "aspect": (16, 31),
    "verifier": (MAX_REWARDS, 32),
    "judge": (MAX_JUDGES, 32),
    "task": (16, 52),
}
"""The largest number of members that a family may have, and the length of their names."""


@pytest.mark.parametrize("stage", STAGE_METRICS)
@given(data=st.data())
def test_of_the_largest_run_every_single_metric_survives_and_families_are_whole_or_named(
    stage: Stage, data: st.DataObject
) -> None:
    counts = {member: data.draw(st.integers(0, most), member) for member, (most, _) in MEMBERS.items()}
    number = st.floats(-1e9, 1e9, allow_subnormal=False)
    values = data.draw(st.lists(number, min_size=8, max_size=8))
    warnings = data.draw(st.lists(st.text("abc. ", max_size=MAX_WARNING_LENGTH), max_size=MAX_WARNINGS))
    singles, families = STAGE_METRICS[stage].singles(), STAGE_METRICS[stage].families()
    members = {
        name: [f"{index:x}".ljust(MEMBERS[family.member][1], "x") for index in range(counts[family.member])]
        for name, family in families.items()
    }
    names = [families[name].of(member).name for name, found in members.items() for member in found]
    metrics = tuple(
        Metric(name=name, value=values[index % len(values)]) for index, name in enumerate([*names, *singles])
    )
    result = StageResult(outcome=Outcome.SUCCEEDED, artifact=ARTIFACT, metrics=metrics, warnings=tuple(warnings))
    back = StageResult.decode(result.encode())
    told = {metric.name: metric.value for metric in back.metrics}
    wanted = {metric.name: metric.value for metric in metrics}
    assert told.keys() >= singles.keys()
    assert told == pytest.approx({name: wanted[name] for name in told}, rel=1e-5)
    for name, found in members.items():
        is_whole = {families[name].of(member).name for member in found} <= told.keys()
        assert is_whole is (name not in back.omitted)
    assert len(back.warnings) == len(warnings) or not any(_family(name) for name in told)


def _family(name: str) -> str:
    family, separator, _ = name.partition(MEMBER_SEPARATOR)
    return family if separator else name
