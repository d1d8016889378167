"""The judge stage with judges, canaries and shards as a test wants them: no engine, no server."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dynalign_contract.config import JudgeParams, StageConfig
from dynalign_contract.objective import Aspect, builtin_objective
from dynalign_contract.records import JUDGEMENT, ROLLOUT, JudgementRow, read_rows
from dynalign_contract.settings import JudgingSettings
from dynalign_contract.stages import Stage
from dynalign_trainer.judge import stage
from dynalign_trainer.runtime.context import StageOutput
from lab.stage_attempts import attempt
from support.training_data import write_artifact

OBJECTIVE = builtin_objective("collective-agency").model_copy(
    update={"aspects": (Aspect(id="care", title="Care", definition="d"),)}
)


def rollout_rows(
    answers: Mapping[tuple[str, int], str], columns: Mapping[str, Mapping[str, str]] | None = None, **more: Any
) -> list[dict[str, Any]]:
    """A rollout for each (prompt, candidate) -> answer; `columns` are those of each prompt."""
    return [
        {
            "prompt_id": prompt,
            "candidate": candidate,
            "prompt_ids": [1],
            "completion_ids": [2, 3],
            "logprobs": [0.0, 0.0],
            "finish_reason": "stop",
            "policy": "base",
            "text": text,
            "messages": [{"role": "user", "content": f"How much is {prompt}?"}],
            **({} if columns is None else {"columns": dict(columns[prompt])}),
            **more,
        }
        for (prompt, candidate), text in answers.items()
    ]


class PanelBench:
    """A judge stage in a folder. How its models are opened is patched by the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.warnings: list[str] = []

    def judge(
        self, judging: JudgingSettings, rows: Sequence[dict[str, Any]], *, shard: int = 0, shards: int = 1, **more: Any
    ) -> StageOutput[JudgeParams]:
        """Run the stage on these rollouts; `more` are further parameters of it."""
        if not (self.root / "rollouts").exists():
            write_artifact(self.root, "rollouts", Stage.GENERATE, rows, schema=ROLLOUT)
        params = JudgeParams(objective=OBJECTIVE, judging=judging, max_tokens=8, prompts_per_part=1, **more)
        config = StageConfig(run="r", iteration=0, params=params, shards=shards)
        inputs = {"rollouts": self.root / "rollouts"}
        context = attempt(config, self.root, folder=self.folder(shard), shard=shard, inputs=inputs)
        self.folder(shard).mkdir(exist_ok=True)
        self.warnings = context.warnings
        return stage.run(context)

    def folder(self, shard: int = 0) -> Path:
        return self.root / f"judgements-{shard}"

    def rows(self, shard: int = 0) -> list[JudgementRow]:
        parts = sorted(self.folder(shard).glob("part-*.parquet"))
        return [row for part in parts for row in read_rows(part, JUDGEMENT)]
