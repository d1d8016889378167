"""The data of the evaluation's tasks: brought while there is a network, for the evaluate stage, which has none."""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from dynalign_contract.errors import BadInputError, StageError, TerminatedError
from dynalign_contract.settings import OWN_TASKS
from dynalign_trainer.fetch.apart import run_apart
from dynalign_trainer.fetch.copying import Watch, replace_folder
from dynalign_trainer.fetch.hub import HubUnreachableError, status_of

log = logging.getLogger("dynalign.fetch")

_FIELD: Final = "spec.evaluation.capability.tasks"
_ONLINE: Final = {"HF_TOKEN_PATH": os.devnull}
"""The token comes from `HF_TOKEN`, and not from the home folder."""
_OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_QUIET: Final = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
_REFUSALS: Final = frozenset({401, 403, 404})


def fetch_task_data(names: Sequence[str], folder: Path, watch: Watch) -> None:
    """Bring what the items of each task are made of into a folder of its name; a task that has one is left alone.

    Where the hub does not give them, this machine's own Hugging Face cache will do, and no folder is made. `watch` is
    told bytes; how many there will be is not known. Raises BadInputError when there is no such task, the hub keeps its
    data closed, or they cannot be loaded without a network, and HubUnreachableError when the hub does not answer.
    """
    for name in names:
        if not (folder / name).is_dir():
            _fetch(name, folder / name, watch)


def _fetch(name: str, target: Path, watch: Watch) -> None:
    temporary = target.with_name(f".{name}.tmp")

    def look() -> None:
        watch(_bytes_in(temporary), 0)

    try:
        run_apart(_download, (name, temporary), look)
        run_apart(_find, (name, temporary), look)
    except TerminatedError:
        raise
    except StageError as error:
        if not _is_here(name, watch):
            if isinstance(error, BadInputError):
                shutil.rmtree(temporary, ignore_errors=True)  # of no use to the next attempt
            raise
        log.info("%s This machine's own Hugging Face cache has what %s needs.", error, name)
        shutil.rmtree(temporary, ignore_errors=True)
        return
    replace_folder(temporary, target)


def _is_here(name: str, watch: Watch) -> bool:
    """Whether the stage that needs them will find the data without our help."""
    try:
        run_apart(_find, (name, None), lambda: watch(0, 0))
    except TerminatedError:
        raise
    except StageError:
        return False
    return True


def _download(name: str, folder: Path) -> None:
    """In a process of its own, for the libraries read the environment when they are imported."""
    os.environ.update(_ONLINE | _QUIET)
    from dynalign_trainer.tasks.data import nltk_folder
    from dynalign_trainer.tasks.suites import load_task_data

    nltk_folder(folder).mkdir(parents=True, exist_ok=True)
    try:
        load_task_data(name, folder)
    except StageError:
        raise
    except Exception as error:  # what a data set that is out of reach raises depends on its loader
        raise explain(error, name) from error


def _find(name: str, folder: Path | None) -> None:
    """Load without a network, as the evaluate stage will. In a process of its own."""
    os.environ.update(_OFFLINE | _QUIET)
    from dynalign_trainer.tasks.suites import load_task_data

    try:
        load_task_data(name, folder)
    except Exception as error:  # as above
        raise BadInputError(
            f"{_FIELD}: the data of {name} have been downloaded, but cannot be loaded without a network, which the "
            f"evaluate stage does not have ({_told(error)}). Name another task."
        ) from error


def explain(error: Exception, name: str) -> Exception:
    """What it means for the run that the data of a task cannot be loaded; a full volume's error is handed back."""
    import httpx
    from datasets.exceptions import DatasetNotFoundError

    from dynalign_trainer.tasks.data import SENTENCES, MissingSentencesError

    for cause in _causes(error):
        if isinstance(cause, MissingSentencesError):
            return HubUnreachableError(
                f"{_FIELD}: {name} needs nltk's {SENTENCES}, which could not be downloaded from "
                "raw.githubusercontent.com. Let the fetch stage reach it, put it into a folder of the image that "
                "NLTK_DATA names, or name another task."
            )
        if isinstance(cause, DatasetNotFoundError) or status_of(cause) in _REFUSALS:
            return BadInputError(
                f"{_FIELD}: the hub does not give the data of {name} ({_told(error)}). Where they are gated, accept "
                "their terms there, and put a token that may read them into the Secret of spec.model.tokenSecretRef "
                "(HF_TOKEN for a local run)."
            )
        if isinstance(cause, httpx.HTTPError | ConnectionError | TimeoutError):
            return HubUnreachableError(
                f"{_FIELD}: the data of {name} could not be downloaded ({_told(error)}). The next attempt goes on "
                f"where this one stopped; without a network, write {' or '.join(OWN_TASKS)}, which bring their own."
            )
        if isinstance(cause, OSError) and cause.errno is not None and not isinstance(cause, FileNotFoundError):
            return cause
    return BadInputError(
        f"{_FIELD}: {name} cannot be loaded ({_told(error)}). Not every task of the harness goes with the installed "
        "versions of its libraries: name another one."
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _bytes_in(folder: Path) -> int:
    sizes = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # it has just been renamed
                sizes += Path(place, name).lstat().st_size
    return sizes
