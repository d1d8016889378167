"""Which exit code belongs to which reason of the condition Stalled: one table, read in both directions. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dynalign_contract.exit_codes import ExitCode
from dynalign_operator.planning import reasons

_RETRIABLE: Final = 1
"""Exit code for a reason that is not one of a stage's final ones."""

_EXIT_CODES: Final[Mapping[str, ExitCode]] = MappingProxyType(
    {
        reasons.BAD_CONFIG: ExitCode.BAD_CONFIG,
        reasons.BAD_INPUT: ExitCode.BAD_INPUT,
        reasons.UNFIT: ExitCode.UNFIT,
        reasons.REJECTED: ExitCode.UNFIT,
        reasons.REPEATED_ERROR: ExitCode.REPEATED,
        reasons.BAD_OBJECTIVE: ExitCode.BAD_CONFIG,
        reasons.OUT_OF_MEMORY: ExitCode.BAD_CONFIG,
        reasons.CORRUPT_ARTIFACT: ExitCode.BAD_INPUT,
        reasons.MISSING_ARTIFACT: ExitCode.BAD_INPUT,
        reasons.BUDGET_EXCEEDED: ExitCode.OVER_BUDGET,
    }
)
"""Reason -> exit code. The first reason of a final code is the one for a stage that ended with it."""


def reason_of(code: ExitCode) -> str:
    """Reason for a stage that ended with a final exit code. Raises KeyError for another code."""
    for reason, found in _EXIT_CODES.items():
        if found is code:
            return reason
    raise KeyError(code)


def exit_code_of(reason: str) -> int:
    """Exit code of `dynalign run` for a run that is stalled for this reason."""
    return int(_EXIT_CODES.get(reason, _RETRIABLE))
