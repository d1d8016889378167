"""Offline runs of Weights & Biases: a run with the curves and one for each iteration, in one group; each is there once.

wandb's own client writes them. They lie in a folder on the same volume first and are moved into the run's folder when
they are whole. The run of an iteration that is there is complete and stays; the run with the curves is written anew.
Their ids never change, so that what is sent again is known to the server.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dynalign_contract.errors import BadConfigError
from dynalign_contract.layout import WANDB_FOLDER
from dynalign_contract.run_facts import RunFacts
from dynalign_contract.settings import WandbSettings
from dynalign_trainer.endpoints.refusals import EndpointError
from dynalign_trainer.report.numbers import IterationNumbers, flat_configuration

if TYPE_CHECKING:
    import wandb

_OWN_FOLDERS: Final = ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR")
"""Variables that name folders which the client writes to beside its runs."""
_GROUP_DIGITS: Final = 8


def write_offline_runs(
    settings: WandbSettings,
    identity: str,
    facts: RunFacts,
    iterations: Sequence[IterationNumbers],
    *,
    root: Path,
    scratch: Path,
) -> None:
    """Bring the folder `wandb` of the run's folder up to date with a run whose ids begin with `identity`.

    `scratch` is a folder on the same volume. Raises BadConfigError where the package is not installed, EndpointError
    where its client fails.
    """
    fresh, target = scratch / "wandb-runs", root / WANDB_FOLDER
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    target.mkdir(exist_ok=True)
    missing = [numbers for numbers in iterations if not _folders(target, f"{identity}-{numbers.index}")]
    with _open_client(fresh, scratch / "wandb-client") as client:
        writer = _Writer(client, settings, fresh, identity, facts)
        for numbers in missing:
            references = {f"dynalign.artifact.{stage}": digest for stage, digest in numbers.artifacts.items()}
            name = f"iteration {numbers.index}"
            writer.write(f"{identity}-{numbers.index}", name, "iteration", references, [numbers])
        writer.write(identity, facts.name, "run", flat_configuration(facts.configuration), iterations)
    for made in [f"{identity}-{numbers.index}" for numbers in missing] + [identity]:
        for old in _folders(target, made):
            shutil.rmtree(old)
        for new in _folders(fresh / "wandb", made):
            new.replace(target / new.name)
    shutil.rmtree(fresh)


@dataclass(frozen=True)
class _Writer:
    """Writes runs of one group."""

    client: "wandb.Settings"
    settings: WandbSettings
    folder: Path
    identity: str
    facts: RunFacts

    def write(
        self, name: str, title: str, kind: str, config: Mapping[str, Any], iterations: Sequence[IterationNumbers]
    ) -> None:
        """One run with these iterations as its steps."""
        import wandb

        run = wandb.init(
            project=self.settings.project,
            id=name,
            name=title,
            group=f"{self.facts.name}-{self.identity[:_GROUP_DIGITS]}",
            job_type=kind,
            config=dict(config),
            settings=self.client,
            reinit="create_new",
        )
        for numbers in iterations:
            run.log(dict(numbers.metrics), step=numbers.index)
        if kind == "run":
            run.summary.update({"dynalign.progress": self.facts.progress, "dynalign.best": self.facts.best})
        run.finish(exit_code=1 if kind == "run" and self.facts.phase == "Failed" else 0)


@contextmanager
def _open_client(folder: Path, own: Path) -> Iterator["wandb.Settings"]:
    """Settings of a client that writes runs into a folder, asks no server, and looks at neither machine nor code.

    The files are whole when the context is left. Raises BadConfigError, EndpointError.
    """
    before = {name: os.environ.get(name) for name in (*_OWN_FOLDERS, "WANDB_ERROR_REPORTING")}
    os.environ |= {**dict.fromkeys(_OWN_FOLDERS, str(own)), "WANDB_ERROR_REPORTING": "false"}
    try:
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise BadConfigError(
                f"spec.tracking.wandb needs the package wandb ({error.name} is missing). Install it beside the stages, "
                "use an image that has it, or remove spec.tracking.wandb."
            ) from error
        try:
            yield wandb.Settings(
                mode="offline",
                root_dir=str(folder),
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                save_code=False,
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
            )
        except wandb.Error as error:
            raise EndpointError(f"wandb's client could not write its runs: {error}") from error
        finally:
            wandb.teardown()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(own, ignore_errors=True)


def _folders(within: Path, name: str) -> list[Path]:
    """Folders of the run with this id; the client puts a time before it."""
    return sorted(within.glob(f"offline-run-*-{name}"))
