"""A StageResult fits into a termination message, whatever it has to say."""

from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.result import (
    MAX_RESULT_BYTES,
    MAX_WARNING_LENGTH,
    MAX_WARNINGS,
    ArtifactRef,
    Metric,
    Outcome,
    ResultError,
    StageResult,
)
from dynalign_contract.settings import TrainingBackend
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
    assert result.metrics[: len(back.metrics)] == back.metrics
    assert result.warnings[: len(back.warnings)] == back.warnings
    assert len(back.metrics) == len(metrics) or not back.warnings, "warnings go before the metrics"
    assert back.training == result.training or not back.metrics, "metrics go before the choice of training"


def test_metrics_go_before_the_message() -> None:
    metrics = tuple(Metric(name=f"m{i}", value=1.0) for i in range(300))
    result = StageResult(outcome=Outcome.FAILED, error=ResultError(reason="R", message="why"), metrics=metrics)
    back = StageResult.decode(result.encode())
    assert back.error == result.error
    assert 0 < len(back.metrics) < 300
