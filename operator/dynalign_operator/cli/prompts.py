"""`dynalign prompts`: what the agents wrote, and what became of it."""

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dynalign_operator.cli.terminal import count_of, open_console, print_json
from dynalign_operator.cli.workdirs import WorkdirArgument, find_workdir, load_run

if TYPE_CHECKING:
    from dynalign_operator.cli.prompt_files import PromptArtifact


def prompts(
    place: WorkdirArgument = None,
    iteration: Annotated[
        int | None,
        typer.Option(min=0, help="Iteration, from 0. Default: the latest that has prompts.", show_default=False),
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="Number of prompts to show.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print all prompts and drafts as JSON.")] = False,  # noqa: FBT002 - typer's flag
) -> None:
    """Print samples of an iteration's prompts, and what each agent was given, kept and dropped.

    Drafts that were dropped are shown too, one for each cause.
    """
    from dynalign_operator.cli.prompt_files import read_prompts

    workdir = find_workdir(place)
    load_run(workdir)
    found = read_prompts(workdir, iteration)
    if as_json:
        print_json(json.dumps(_without_nan(to_json(found)), indent=2, ensure_ascii=False))
        return
    from dynalign_operator.cli.prompt_tables import pick_dropped, pick_samples, sample_list, yield_table

    console = open_console()
    console.print(f"iteration {found.iteration}: {count_of(len(found.prompts), 'prompt')}")
    console.print(sample_list(pick_samples(found.prompts, samples), pick_dropped(found.drafts) if samples else []))
    for made in found.yields.sets:
        console.print("")
        console.print(yield_table(made))


def to_json(found: "PromptArtifact") -> dict[str, Any]:
    """The whole artifact; a score that there is not is NaN."""
    return {
        "iteration": found.iteration,
        "yields": [made.model_dump(mode="json", by_alias=True) for made in found.yields.sets],
        "prompts": found.prompts,
        "drafts": found.drafts,
    }


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN: null stands in its place."""
    if isinstance(value, dict):
        return {name: _without_nan(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_without_nan(child) for child in value]
    return None if isinstance(value, float) and math.isnan(value) else value
