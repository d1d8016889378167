"""How a run's policy is trained: what `Auto` stands for with its model."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field

from dynalign_contract.base import Model
from dynalign_contract.plain_text import plain_text
from dynalign_contract.settings import ModuleName, TrainingBackend

MAX_REASON_LENGTH: Final = 400

_Reason = Annotated[str, AfterValidator(plain_text), Field(max_length=MAX_REASON_LENGTH)]


class TrainingChoice(Model):
    """The backend and the adapter's modules that training uses: as the run file says, or chosen for its model."""

    backend: TrainingBackend
    """`Packed` or `TRL`."""
    backend_reason: _Reason = ""
    """Why `backend: Auto` is this one; empty where the run file names it."""
    target_modules: tuple[ModuleName, ...] = Field(default=(), max_length=64)
    """Last parts of the names of the modules that get an adapter; none with `method: Full`."""
    target_reason: _Reason = ""
    """Why `targetModules: [Auto]` are these; empty where the run file names them."""

    def describe(self) -> list[str]:
        """Lines for people: the backend, and the adapter's modules where there are any."""
        lines = [_line(f"backend {self.backend}", self.backend_reason)]
        if self.target_modules:
            lines.append(_line(f"adapter on {', '.join(self.target_modules)}", self.target_reason))
        return lines


def _line(text: str, reason: str) -> str:
    return f"{text} (Auto: {reason})" if reason else text
