"""Reading of a run's folder for its report: manifests, candidates and held-out answers. The rim of this package."""

from pathlib import Path

from dynalign_contract.errors import StageError
from dynalign_contract.layout import RunLayout
from dynalign_contract.stages import Stage
from dynalign_report.facts import Group, HeldOutPrompt, ReportedRun, RunFacts
from dynalign_report.groups import read_groups
from dynalign_report.held_out import read_held_out
from dynalign_report.stage_facts import artifact_parts, find_iterations, read_stages


def read_reported_run(root: Path, facts: RunFacts, label: str = "") -> ReportedRun:
    """What a run has left in its folder so far. Artifacts that cannot be read become sentences in `problems`."""
    layout, iterations = RunLayout(root), find_iterations(root)
    stages, problems = read_stages(root, facts)
    groups: dict[int, tuple[Group, ...]] = {}
    for iteration in iterations:
        try:
            if found := read_groups(
                artifact_parts(layout.stage(Stage.GENERATE, iteration)),
                artifact_parts(layout.stage(Stage.JUDGE, iteration)),
                layout.batch(iteration),
            ):
                groups[iteration] = found
        except StageError as error:
            problems.append(str(error))
    held_out: tuple[HeldOutPrompt, ...] = ()
    try:
        evaluations = {i: layout.stage(Stage.EVALUATE, i) for i in iterations}
        held_out = read_held_out({i: path for i, path in evaluations.items() if artifact_parts(path)})
    except StageError as error:
        problems.append(str(error))
    return ReportedRun(
        label=label or facts.name,
        facts=facts,
        stages=stages,
        groups=groups,
        held_out=held_out,
        problems=tuple(dict.fromkeys(problems)),
    )
