"""Golden files: what an output looked like when somebody last read it. `pytest --update-goldens` writes them anew."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Goldens:
    """Compares with the files below tests/data, or writes them."""

    update: bool

    def check_yaml(self, name: str, documents: list[dict[str, Any]]) -> None:
        self.check_text(name, yaml.safe_dump_all(documents, sort_keys=False, width=120))

    def check_text(self, name: str, text: str) -> None:
        path = FOLDER / name
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.is_file(), f"{path} does not exist: run pytest --update-goldens, and read what it has written"
        assert text == path.read_text(), f"{path} differs: if that is intended, run pytest --update-goldens"
