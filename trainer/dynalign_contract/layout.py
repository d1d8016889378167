"""Every path on a run's volume, relative to the run's folder. The only home of these names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dynalign_contract.stages import Stage

_FOLDERS: Final = {
    Stage.ROLLOUT: "judgements",
    Stage.PROMPTS: "prompts",
    Stage.GENERATE: "rollouts",
    Stage.JUDGE: "judgements",
    Stage.TRAIN: "policy",
    Stage.EVALUATE: "evaluation",
}

MANIFEST: Final = "manifest.json"
WORK_MARK: Final = ".config-digest"
"""In a stage's folder while it works: digest of the configuration that its parts are made with."""
SOURCE_FILE: Final = "source.json"
"""Where a fetched model came from; part of the artifact."""
PROMPTS_FILE: Final = "prompts.parquet"
HELD_OUT_FILE: Final = "heldout.parquet"
DRAFTS_FILE: Final = "drafts.parquet"
YIELD_FILE: Final = "yield.json"
CANARIES_FILE: Final = "canaries.parquet"
ANSWERS_FILE: Final = "answers.parquet"
COMPARISONS_FILE: Final = "comparisons.parquet"
RATINGS_FILE: Final = "ratings.parquet"
CAPABILITY_FILE: Final = "capability.parquet"
BATCH_FILE: Final = "batch.parquet"
PART_PREFIX: Final = "part-"
MODEL_FOLDER: Final = "model"
REPORT_FOLDER: Final = "report"
TENSORBOARD_FOLDER: Final = "tensorboard"
"""Event files for TensorBoard, in the run's folder; replaced with every report."""
WANDB_FOLDER: Final = "wandb"
"""Offline runs of Weights & Biases, in the run's folder."""
TRACKING_ID_FILE: Final = "tracking-id"
"""What trackers know the run by, in the run's folder: a random number that is made once."""
REPORT_FILE: Final = "report.html"
"""In the run's folder itself, where people look for it; the report stage replaces it as a whole."""
REPORT_RECORD: Final = "report.json"
"""What the latest report covers; the artifact of the report stage."""
COMPILED_FOLDER: Final = "cache"
"""What vLLM and torch compile and look up once for all stages of a run; not an artifact, and safe to remove."""
TASKS_FOLDER: Final = "tasks"
"""Data of the evaluation's tasks that dynalign does not ship, one folder a task, whole or absent; not an artifact."""


def part_name(index: int) -> str:
    """Name of one part of a Parquet artifact: `part-00017.parquet`."""
    return f"{PART_PREFIX}{index:05d}.parquet"


def stage_folder(stage: Stage, iteration: int | None = None) -> str:
    """Folder of a stage's artifact, relative to the run's folder.

    `iteration` is 0-based and required for the stages of an iteration, None for fetch, export and report. A rollout's
    is that of judge, the last of its stages.
    """
    if stage is Stage.FETCH:
        return MODEL_FOLDER
    if stage is Stage.EXPORT:
        return "export"
    if stage is Stage.REPORT:
        return REPORT_FOLDER
    if iteration is None:
        raise ValueError(f"stage {stage} belongs to an iteration")
    return f"iterations/{iteration:03d}/{_FOLDERS[stage]}"


def shard_folder(folder: str, index: int, count: int) -> str:
    """Folder of one shard: the stage's own folder when there is one shard, `<folder>/shard-003` otherwise."""
    return folder if count == 1 else f"{folder}/shard-{index:03d}"


def shares_folder(folder: str, digest: str) -> str:
    """Folder of the shares that are joined into the artifact at `folder`, which lie beside it until then.

    `digest` is that of the configuration: shares of another one are never met.
    """
    return f"{folder}-shares/{_short(digest)}"


def leases_folder(folder: str, digest: str) -> str:
    """Folder of the leases by which the shards of the stage at `folder` share its parts, beside it until all are done.

    `digest` is that of the configuration: leases of another one are never met.
    """
    return f"{folder}-leases/{_short(digest)}"


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:16]


@dataclass(frozen=True)
class RunLayout:
    """Absolute paths of one run, for the code that opens files."""

    root: Path

    @property
    def model(self) -> Path:
        """The base model, a Hugging Face folder."""
        return self.root / MODEL_FOLDER

    @property
    def tasks(self) -> Path:
        """Data of foreign tasks, below it a Hugging Face cache for each, under the task's name."""
        return self.root / TASKS_FOLDER

    @property
    def export(self) -> Path:
        """The exported model."""
        return self.root / "export"

    @property
    def report(self) -> Path:
        """The self-contained report."""
        return self.root / REPORT_FILE

    def stage(self, stage: Stage, iteration: int | None = None) -> Path:
        """Folder of a stage's artifact."""
        return self.root / stage_folder(stage, iteration)

    def batch(self, iteration: int) -> Path:
        """The training batch built from an iteration's judged rollouts."""
        return self.root / f"iterations/{iteration:03d}/batch"

    def checkpoints(self, iteration: int) -> Path:
        """Optimiser checkpoints of an iteration's training; removed when it is done."""
        return self.root / f"iterations/{iteration:03d}/checkpoints"
