"""How many prompts of the user's own a run needs, and how a file of them is shared out. Pure."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dynalign_contract.settings import PromptSettings

_HELD_OUT_SHARE: Final = 0.2
"""Share of the file that is held out at most, where it has too few rows for both purposes."""


@dataclass(frozen=True)
class Amount:
    """Rows of a file by purpose."""

    held_out: int
    """Rows that are held out for the evaluation."""
    training: int
    """Rows that are left for training."""
    wanted: int
    """Rows that an iteration wants for training."""

    @property
    def missing(self) -> int:
        """Rows that an iteration lacks."""
        return max(0, self.wanted - self.training)


def share_out(settings: PromptSettings, rows: int) -> Amount:
    """What a file of so many usable rows gives to each purpose; the agents write the rest of the held-out set."""
    share = 0.0 if settings.supplied is None else settings.supplied.share
    wanted = round(share * settings.per_iteration)
    spare = max(int(_HELD_OUT_SHARE * rows), rows - wanted)
    held_out = min(round(share * settings.held_out), spare)
    return Amount(held_out=held_out, training=rows - held_out, wanted=wanted)


def explain_shortage(settings: PromptSettings, rows: int, path: Path) -> str | None:
    """Why a file of so many usable rows is too small for the run, and what to do; None where it is not."""
    if settings.supplied is None:
        return None
    amount = share_out(settings, rows)
    found = settings.per_iteration - amount.missing
    if found and found >= settings.min_yield * settings.per_iteration:
        return None
    share = settings.supplied.share
    lower = max(1, int(amount.training / share))
    held = f", of which {amount.held_out} are held out for the evaluation" if amount.held_out else ""
    agents = f"lower spec.prompts.supplied.share, which is {share:g}, so that agents write more of them"
    return (
        f"spec.prompts.perIteration is {settings.per_iteration} and needs {amount.wanted} rows of your own, but {path} "
        f"has {rows} that can be used{held}, so {amount.training} are left for training. Lower "
        f"spec.prompts.perIteration to {lower}, add rows to the file, or {agents}."
    )
