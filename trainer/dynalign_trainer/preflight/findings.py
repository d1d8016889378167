"""Collecting what is wrong, so that one attempt tells everything."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from dynalign_contract.errors import BadConfigError, BadInputError, StageError, TerminatedError
from dynalign_contract.preflight import Finding, PreflightReport
from dynalign_contract.training_choice import TrainingChoice

T = TypeVar("T")


@dataclass
class Findings:
    """Errors and notes of several checks, and the choices that they make."""

    errors: list[StageError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    training: TrainingChoice | None = None
    """How the policy is trained; None until that is known."""

    def attempt(self, check: Callable[[], T]) -> T | None:
        """The check's answer; None when it found something, which is kept. SIGTERM is no finding."""
        try:
            return check()
        except TerminatedError:
            raise
        except StageError as error:
            if str(error) not in map(str, self.errors):
                self.errors.append(error)
            return None

    def raise_errors(self) -> None:
        """Raise what was found: the error itself where there is one, else one error that tells all of them."""
        if not self.errors:
            return
        if len(self.errors) == 1:
            raise self.errors[0]
        text = " ".join(f"({number}) {error}" for number, error in enumerate(self.errors, start=1))
        kind = BadConfigError if all(isinstance(error, BadConfigError) for error in self.errors) else BadInputError
        raise kind(f"{len(self.errors)} things are wrong. {text}")

    def report(self) -> PreflightReport:
        """The findings for another process."""
        return PreflightReport(
            findings=tuple(
                Finding(reason=error.reason, exit_code=int(error.exit_code), message=str(error))
                for error in self.errors
            ),
            notes=tuple(self.notes),
            training=self.training,
        )
