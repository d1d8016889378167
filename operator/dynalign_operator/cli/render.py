"""`dynalign render`: the Kubernetes objects that a run would create, as YAML."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dynalign_contract.stages import Stage
from dynalign_operator.cli.settings import Settings
from dynalign_operator.cli.terminal import say

if TYPE_CHECKING:
    from dynalign_operator.planning.plan import JobBundle
    from dynalign_operator.runfile.run_file import RunFile


def render(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Run file.", show_default=False)],
    stage: Annotated[
        Stage | None, typer.Option(help="Print this stage only, or the rollout that does it.", show_default=False)
    ] = None,
    iteration: Annotated[
        int | None, typer.Option(min=0, help="Print this iteration only, from 0.", show_default=False)
    ] = None,
    settings: Settings = None,
    all_stages: Annotated[bool, typer.Option("--all", help="Print every stage of every iteration.")] = False,  # noqa: FBT002 - typer's flag
) -> None:
    """Print the objects that would be applied: the volume claim, then a ConfigMap and a Job for each stage.

    Without options only the first stage is printed. Digests of artifacts that do not exist yet are zeros. What an
    installation decides (image, identity, proxy, defaults of pods) is read from the operator's variables, such as
    DYNALIGN_TRAINER_PODS; `kubectl get deploy` shows those of yours.
    """
    from dynalign_operator.cli.load import load_run_file, require_objective
    from dynalign_operator.cli.report_problems import report_notes, report_problems
    from dynalign_operator.clusters.run_source import LogSelection
    from dynalign_operator.manifests.installation import SettingsError
    from dynalign_operator.runfile.run_file import RunFileError
    from dynalign_operator.runfile.yaml_text import to_yaml

    try:
        bundles = _bundles(report_notes(file, require_objective(load_run_file(file, settings or ()))))
    except RunFileError as error:
        raise typer.Exit(report_problems(file, error)) from error
    except SettingsError as error:
        say(str(error), err=True)
        raise typer.Exit(10) from error
    if stage is None and iteration is None:
        chosen = bundles if all_stages else bundles[:1]
    else:
        wanted = LogSelection(stage, iteration)
        chosen = [bundle for bundle in bundles if wanted.matches(bundle.step, bundle.attempt)]
    if not chosen:
        say(f"{file}: the run has no such stage; it has {_describe(bundles)}.", err=True)
        raise typer.Exit(10)
    say(to_yaml(_objects(chosen)), end="")


def _bundles(run_file: "RunFile") -> list["JobBundle"]:
    import os
    from datetime import UTC, datetime

    from dynalign_operator.manifests.installation import read_build_settings
    from dynalign_operator.planning.rehearsal import rehearse

    return list(rehearse(run_file.run, run_file.config_maps, datetime.now(UTC), read_build_settings(os.environ)))


def _objects(bundles: Iterable["JobBundle"]) -> Iterator[dict[str, Any]]:
    yield from [bundle.volume_claim for bundle in bundles if bundle.volume_claim is not None][:1]
    yield from [bundle.service for bundle in bundles if bundle.service is not None][:1]
    for bundle in bundles:
        if bundle.network_policy is not None:
            yield bundle.network_policy
        yield bundle.config_map
        yield bundle.job


def _describe(bundles: Iterable["JobBundle"]) -> str:
    steps = [bundle.step for bundle in bundles]
    names = list(dict.fromkeys(str(step.stage) for step in steps))
    last = max((step.iteration for step in steps if step.iteration is not None), default=0)
    return f"the stages {', '.join(names)} and the iterations 0 to {last}"
