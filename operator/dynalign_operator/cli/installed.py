"""Which packages of the stages are missing from this environment, and how to add them."""

import sys
from importlib.util import find_spec
from typing import Final

_STAGES: Final = ("torch", "transformers", "vllm")

HOW_TO_ADD: Final = "dynalign requirements cpu > requirements.txt && pip install --no-deps -r requirements.txt"


def missing_packages() -> list[str]:
    """The packages without which no stage runs here; empty where `dynalign run` can work."""
    return [name for name in _STAGES if find_spec(name) is None]


def explain_missing(packages: list[str]) -> str:
    """What is missing, and the commands that add it to this environment."""
    return (
        f"The stages are not installed in {sys.prefix}: {', '.join(packages)} cannot be imported, so no run can work "
        "here. With an NVIDIA GPU:\n"
        "  pip install 'dynalign[gpu]'\n"
        "without:\n"
        "  dynalign requirements cpu > requirements.txt\n"
        "  pip install --no-deps -r requirements.txt\n"
        f"Where there is no pip, write `uv pip install --python {sys.executable}` for `pip install`."
    )
