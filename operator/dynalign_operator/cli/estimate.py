"""`dynalign estimate`: what a run will take, before it takes anything."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynalign_contract.accelerators import Hardware
from dynalign_operator.cli.settings import Settings
from dynalign_operator.cli.terminal import open_console, print_json, say
from dynalign_operator.estimate.hardware import efficiency_of

if TYPE_CHECKING:
    from rich.table import Table

    from dynalign_contract.model_shape import ModelShape
    from dynalign_operator.estimate.hardware import Efficiency
    from dynalign_operator.estimate.run_estimate import RunEstimate
    from dynalign_operator.runfile.run_file import RunFile


class EstimateOutput(StrEnum):
    """Formats of an estimate."""

    JSON = "json"


Volume = Annotated[
    float | None,
    typer.Option(min=0.01, help="GB a second that the run's volume gives to all pods together.", show_default=False),
]


def estimate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Run file.", show_default=False)],
    settings: Settings = None,
    *,
    hardware: Annotated[
        Hardware | None,
        typer.Option(help="Accelerator. Default: CPU where no stage asks for GPUs, else H100.", show_default=False),
    ] = None,
    model_config: Annotated[
        Path | None,
        typer.Option(
            "--model-config", metavar="FILE", help="config.json of a model that is not known here.", show_default=False
        ),
    ] = None,
    answer_share: Annotated[
        float,
        typer.Option("--answer-share", min=0.01, max=1.0, help="Mean length of an answer, as a share of the longest."),
    ] = 0.75,
    price: Annotated[
        float | None, typer.Option(min=0.0, help="Price of one accelerator-hour, in your money.", show_default=False)
    ] = None,
    volume: Volume = None,
    factors: Annotated[bool, typer.Option("--factors", help="Print what the arithmetic rests on.")] = False,
    output: Annotated[
        EstimateOutput | None,
        typer.Option("-o", "--output", help="Print everything in this format.", show_default=False),
    ] = None,
) -> None:
    """Estimate time, GPU-hours, memory and disk of a run, by arithmetic on its specification.

    Exit code 10: the file is not valid, or the model's sizes are not known. What does not fit is said, with what to
    change.
    """
    from dynalign_operator.cli.check_files import find_objective
    from dynalign_operator.estimate.run_estimate import estimate_run

    run_file, shape = _load(file, settings, model_config)
    chosen = hardware or default_hardware(run_file)
    bandwidth = None if volume is None else volume * 1e9
    found = estimate_run(
        run_file.run.spec,
        find_objective(run_file),
        shape,
        chosen,
        answer_share=answer_share,
        price=price,
        volume_bandwidth=bandwidth,
    )
    if output is EstimateOutput.JSON:
        print_json(found.to_json(indent=2))
    else:
        _print(run_file.run.metadata.name, found, efficiency_of(chosen, bandwidth) if factors else None)


def _load(file: Path, settings: Settings, model_config: Path | None) -> "tuple[RunFile, ModelShape]":
    """The run file, and the sizes of its model; ends the process where there is none."""
    from dynalign_contract.model_shape import UnknownShapeError
    from dynalign_operator.cli.load import load_run_file
    from dynalign_operator.cli.report_problems import report_notes, report_problems
    from dynalign_operator.runfile.run_file import RunFileError

    try:
        run_file = report_notes(file, load_run_file(file, settings or ()))
        shape = shape_of_model(run_file.run.spec.model.uri, model_config)
    except RunFileError as error:
        raise typer.Exit(report_problems(file, error)) from error
    except (UnknownShapeError, OSError, ValueError) as error:
        say(f"{file}: the model's sizes are not known: {error}. Name its config.json with --model-config.", err=True)
        raise typer.Exit(10) from error
    return run_file, shape


def _print(name: str, found: "RunEstimate", efficiency: "Efficiency | None") -> None:
    from dynalign_contract.accelerators import ACCELERATORS

    console = open_console()
    console.print(headline(name, found))
    console.print()
    console.print(stage_table(found))
    for problem in found.problems:
        say(f"does not fit: {problem}", err=True)
    if efficiency is not None:
        accelerator = ACCELERATORS[found.hardware]
        say(
            f"{accelerator.name}: {accelerator.flops / 1e12:g} TFLOPS, {accelerator.bandwidth / 1e12:g} TB/s, "
            f"{accelerator.memory_gib:g} GiB ({accelerator.source})"
        )
        for title, factor in efficiency.factors:
            say(f"{title.replace('_', ' ')}: {factor.value:g}, {factor.what} ({factor.source})")


def default_hardware(run_file: "RunFile") -> Hardware:
    """A CPU where training asks for no GPU or the model ships with dynalign, else an H100."""
    spec = run_file.run.spec
    resources = spec.stages.train.resources if spec.stages.train else None
    limit = resources.limits.get("nvidia.com/gpu") if resources else None
    return Hardware.CPU if limit == "0" or spec.model.uri.startswith("bundled://") else Hardware.H100


def headline(name: str, found: "RunEstimate") -> str:
    """What matters most, in a few sentences."""
    from dynalign_contract.accelerators import ACCELERATORS
    from dynalign_operator.cli.tables import describe_seconds

    on_cpu = found.hardware is Hardware.CPU
    what = ACCELERATORS[found.hardware].name
    where = what if on_cpu else f"{max(stage.gpus for stage in found.stages)} x {what}"
    hours = "" if on_cpu else f", {found.gpu_hours:g} GPU-hours"
    money = "" if found.cost is None else f", which cost {found.cost:g}"
    measured = "" if on_cpu else " No run has been measured on GPUs: take this as an order of magnitude."
    return (
        f"{name} on {where}: {describe_seconds(found.iteration_seconds)} an iteration, "
        f"{describe_seconds(found.run_seconds)} the whole run{hours}{money}, {found.volume_gib:g} GiB on its volume. "
        f"Work takes {found.useful_share:.0%} of the accelerators' time in an iteration; answers of "
        f"{found.answer_tokens:.0f} tokens are assumed (--answer-share).{measured}"
    )


def stage_table(found: "RunEstimate") -> "Table":
    """A line for each stage."""
    from dynalign_operator.cli.tables import describe_seconds, plain_table

    unit = "pods" if found.hardware is Hardware.CPU else "pods x GPUs"
    table = plain_table("stage", unit, "start", "work", "tokens", "GiB each")
    for stage in found.stages:
        tokens = stage.tokens_read + stage.tokens_sampled + stage.tokens_trained
        places = f"{stage.pods} x {stage.gpus // stage.pods}" if unit != "pods" else str(stage.pods)
        table.add_row(
            stage.stage,
            places,
            describe_seconds(stage.start_seconds),
            describe_seconds(stage.work_seconds),
            f"{tokens:,.0f}" if tokens else "-",
            "-" if stage.memory_gib is None else f"{stage.memory_gib:.0f}",
        )
    return table


def shape_of_model(uri: str, model_config: Path | None) -> "ModelShape":
    """Sizes of the model, from the file that the user names, its folder here, or the table of known ones."""
    from dynalign_contract.model_shape import UnknownShapeError, shape_of
    from dynalign_operator.estimate.shapes import known_configs, known_shape

    folder = Path(uri)
    file = model_config or (folder / "config.json" if folder.is_absolute() else None)
    if file is not None:
        return shape_of(json.loads(file.read_text()))
    found = known_shape(uri)
    if found is None:
        raise UnknownShapeError(f"{uri} is not among the {len(known_configs())} that dynalign knows without a hub")
    return found
