"""Which folder the data of a task are loaded into, and from.

`datasets` and `huggingface_hub` read the places of their caches from the environment when they are imported, which in
a stage forked off the preload server has happened long before. They read the places at every call; checked with
datasets 5.2 and huggingface_hub 1.33 (tests/integration/test_task_data.py).
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SENTENCES: Final = "punkt_tab"
"""What nltk splits English into sentences by."""
_SPLIT_SENTENCES: Final = frozenset(
    {"lm_eval.tasks.ifeval.instructions_util", "lm_eval.tasks.leaderboard.ifeval.instructions_util"}
)
"""Modules of tasks that look for it when they are imported, and only warn when a download fails."""


class MissingSentencesError(Exception):
    """nltk does not find what a task splits sentences by."""


@contextmanager
def data_in(folder: Path | None) -> Iterator[None]:
    """Within, data sets are loaded into `folder` and from it; None: where this machine keeps them.

    nltk looks there from now on, for tasks ask it again when answers are scored.
    """
    from datasets import config
    from huggingface_hub import constants

    if folder is None:
        yield
        return
    _show_nltk(nltk_folder(folder))
    before = config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE
    config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE = folder / "datasets", str(folder / "hub")
    try:
        yield
    finally:
        config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE = before


def nltk_folder(folder: Path) -> Path:
    """Where nltk's data lie in the folder of a task; nltk downloads into it when it exists."""
    return folder / "nltk"


def check_sentences(name: str) -> None:
    """Raise MissingSentencesError when a task that has been loaded splits sentences, and nltk cannot."""
    if _SPLIT_SENTENCES.isdisjoint(sys.modules):
        return
    import nltk

    try:
        nltk.data.find(f"tokenizers/{SENTENCES}/english/")
    except LookupError as error:
        raise MissingSentencesError(
            f"the task {name} splits answers into sentences by nltk's {SENTENCES}, which is in none of "
            f"{', '.join(map(str, nltk.data.path))}"
        ) from error


def _show_nltk(folder: Path) -> None:
    others = os.environ.get("NLTK_DATA", "").split(os.pathsep)
    os.environ["NLTK_DATA"] = os.pathsep.join([str(folder), *filter(None, others)])
    if "nltk.data" in sys.modules:
        import nltk

        nltk.data.path.insert(0, str(folder))
