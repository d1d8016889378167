"""What is said of a run in a line: phase, progress, estimated end. Pure."""

from typing import Any, Final

from dynalign_contract.stages import ITERATION_STAGES, Stage, own_stages_of_job
from dynalign_operator.api.status import AlignmentRunStatus, Phase, StagePhase
from dynalign_operator.cli.situation import count_iterations, count_requested_gpus, remark_on, stage_share
from dynalign_operator.cli.tables import describe_win_rate
from dynalign_operator.clusters.run_source import ListedRun
from dynalign_operator.ui.models import Tone
from dynalign_operator.ui.run_keys import key_of

_TONES: Final = {Phase.SUCCEEDED: Tone.GOOD, Phase.FAILED: Tone.BAD, Phase.SUSPENDED: Tone.HELD}


def headline_of(run: ListedRun) -> dict[str, Any]:
    """The fields of a Headline."""
    status, remark = run.status, remark_on(run)
    return {
        "key": str(key_of(run)),
        "name": run.name,
        "group": run.group,
        "is_cluster": run.is_cluster,
        "phase": str(status.phase),
        "remark": remark,
        "tone": _TONES.get(status.phase, Tone.HELD if remark else Tone.PLAIN),
        "iteration": count_iterations(run),
        "stage": "" if status.stage is None or status.phase is Phase.SUCCEEDED else str(status.stage),
        "stage_share": stage_share(status),
        "fraction": fraction_of(status, run.run.spec.iterations if run.run is not None else 1),
        "started_at": status.start_time,
        "ended_at": status.completion_time,
        "ends_at": status.estimated_completion_time if run.is_driven else None,
        "gpus": count_requested_gpus(run.run) if run.is_cluster and run.run is not None else 0,
        "win_rate": next((describe_win_rate(i) for i in reversed(status.iterations) if i.win_rate is not None), ""),
    }


def fraction_of(status: AlignmentRunStatus, iterations: int) -> float:
    """Share of the run's stages that are done, the current one's share included; 1 for a run that has succeeded.

    Iterations whose stages the status no longer holds are complete.
    """
    if status.phase is Phase.SUCCEEDED:
        return 1.0
    ends = [entry for entry in (status.fetch, status.export) if entry is not None]
    done = sum(entry.phase is StagePhase.SUCCEEDED for entry in ends)
    for iteration in status.iterations:
        finished = sum(
            entry.phase is StagePhase.SUCCEEDED and entry.stage in ITERATION_STAGES for entry in iteration.stages
        )
        done += finished if iteration.stages else len(ITERATION_STAGES)
    share = stage_share(status)
    current = float(share.removesuffix("%")) / 100 if share else 0.0
    current *= len(own_stages_of_job(status.stage)) if status.stage is not None else 1
    total = len(ITERATION_STAGES) * max(iterations, len(status.iterations)) + len({Stage.FETCH, Stage.EXPORT})
    return min(1.0, (done + current) / total)
