"""Files that run code in whoever unpickles them, as somebody who can write to a volume would plant them."""

import os
import pickle
from pathlib import Path
from typing import Any


class _Touch:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self._mark),)


def plant_pickle(path: Path, mark: Path) -> None:
    """Replace a file; `mark` appears when code of it runs."""
    path.write_bytes(pickle.dumps(_Touch(mark)))


def plant_torch_file(path: Path, mark: Path) -> None:
    """The same in the container that `torch.save` makes."""
    import torch

    torch.save(_Touch(mark), path)
