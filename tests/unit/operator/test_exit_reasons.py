"""Exit codes of stages, reasons of conditions and exit codes of `dynalign run` agree in both directions."""

import pytest

from dynalign_contract.exit_codes import FINAL, ExitCode
from dynalign_operator.planning import reasons
from dynalign_operator.planning.exit_reasons import exit_code_of, reason_of
from dynalign_operator.planning.retries import Verdict, judge_failure


@pytest.mark.parametrize("code", sorted(FINAL))
def test_a_final_exit_code_comes_back_from_the_shell(code: int) -> None:
    judgement = judge_failure(code, "", failures=0, retries=3, restarted_shards=False)
    assert judgement.verdict is Verdict.GIVE_UP
    assert judgement.reason == reason_of(ExitCode(code))
    assert exit_code_of(judgement.reason) == code


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (reasons.OUT_OF_MEMORY, ExitCode.BAD_CONFIG),
        (reasons.CORRUPT_ARTIFACT, ExitCode.BAD_INPUT),
        (reasons.RETRIES_EXHAUSTED, 1),
        (reasons.STALL_TIMEOUT, 1),
    ],
)
def test_other_reasons_have_the_code_of_their_class(reason: str, code: int) -> None:
    assert exit_code_of(reason) == code


def test_a_retriable_code_has_no_reason_of_its_own() -> None:
    with pytest.raises(KeyError):
        reason_of(ExitCode.TERMINATED)
