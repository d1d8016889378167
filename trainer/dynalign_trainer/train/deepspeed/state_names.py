"""DeepSpeed's names of the files of a checkpoint that belong to one rank."""

import re
import shutil
from pathlib import Path
from typing import Final

_OPTIMIZER: Final = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_\d+_optim_states\.pt")
_MODEL: Final = "zero_pp_rank_{}_mp_rank_00_model_states.pt"


def optimizer_files(checkpoint: Path) -> list[Path]:
    """The ranks' shares of the optimiser, in order of the ranks; none where every rank holds all of it (ZeRO 0)."""
    found = ((_OPTIMIZER.fullmatch(path.name), path) for path in checkpoint.rglob("*_optim_states.pt"))
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def is_optimizer_file(path: Path) -> bool:
    """Whether a file holds one rank's share of the optimiser."""
    return _OPTIMIZER.fullmatch(path.name) is not None


def add_model_files(checkpoint: Path, ranks: int) -> list[Path]:
    """Give each of so many ranks a file with its share of the model, as DeepSpeed looks for one with ZeRO 3.

    There they hold no weights and are all alike. Returns the files that were missing.
    """
    added = []
    for first in checkpoint.rglob(_MODEL.format(0)):
        missing = [path for rank in range(ranks) if not (path := first.with_name(_MODEL.format(rank))).exists()]
        for path in missing:
            shutil.copyfile(first, path)
        added += missing
    return added
