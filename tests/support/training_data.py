"""Made-up rollouts and judgements of a run's first iteration, and the run's folder around them."""

import math
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dynalign_contract.config import Policy, StageConfig, TrainParams
from dynalign_contract.manifest import Manifest, describe_file, write_manifest
from dynalign_contract.records import JUDGEMENT, ROLLOUT, BatchRow, JudgementRow, RolloutRow, write_rows
from dynalign_contract.result import ArtifactRef
from dynalign_contract.settings import TrainingSettings
from dynalign_contract.stages import Stage
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.telemetry import Telemetry
from lab.stage_attempts import attempt

EOS = 2
VOCABULARY = 259


def make_rollouts(prompts: int, candidates: int, *, policy: str = "base", seed: int = 0) -> list[RolloutRow]:
    """Random token sequences of 3 to 12 tokens, the odd candidates truncated; log-probabilities all zero."""
    draw = random.Random(seed)
    rows: list[RolloutRow] = []
    for prompt in range(prompts):
        prompt_ids = [draw.randrange(3, VOCABULARY) for _ in range(4 + prompt % 3)]
        for candidate in range(candidates):
            ids = [draw.randrange(3, VOCABULARY) for _ in range(draw.randint(3, 12))]
            truncated = candidate % 4 == 1
            rows.append(
                {
                    "prompt_id": f"p{prompt:03d}",
                    "candidate": candidate,
                    "prompt_ids": prompt_ids,
                    "completion_ids": ids if truncated else [*ids, EOS],
                    "logprobs": [0.0] * (len(ids) + (not truncated)),
                    "finish_reason": "length" if truncated else "stop",
                    "policy": policy,
                    "text": "",
                    "messages": [{"role": "user", "content": "?"}],
                }
            )
    return rows


def make_judgements(
    rollouts: Sequence[RolloutRow],
    rewards: Sequence[float] | None = None,
    *,
    errors: Sequence[float] | None = None,
    seed: int = 0,
) -> list[JudgementRow]:
    """One judgement a rollout; random rewards unless given, and a single vote unless there are errors."""
    draw = random.Random(seed)
    found = rewards or [draw.random() for _ in rollouts]
    return [
        {
            "prompt_id": row["prompt_id"],
            "candidate": row["candidate"],
            "scores": [{"aspect": "a", "score": 9 * reward, "mass": 1.0}],
            "raw_reward": reward,
            "penalties": {},
            "reward": reward,
            "reward_error": error,
            "retries": 0,
            "judge": "base",
        }
        for row, reward, error in zip(rollouts, found, errors or [math.nan] * len(found), strict=True)
    ]


def score(model: Any, row: RolloutRow | BatchRow, temperature: float = 1.0) -> Any:
    """Log-probabilities of a row's completion tokens, shape (T,), by the plainest forward pass."""
    import torch

    prompt, completion = row["prompt_ids"], row["completion_ids"]
    logits = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]


def with_sampler(rollouts: Sequence[RolloutRow], model: Any, *, noise: float, seed: int = 0) -> list[RolloutRow]:
    """The rollouts with the model's own log-probabilities, disturbed so that ratios differ from 1."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        return [
            row | {"logprobs": (score(model, row) + noise * torch.randn(len(row["completion_ids"]))).tolist()}
            for row in rollouts
        ]


def write_artifact(root: Path, path: str, stage: Stage, rows: Sequence[Any] | None = None, **kinds: Any) -> ArtifactRef:
    """Write rows as one part, or take the folder as it is, and describe it in a manifest."""
    folder = root / path
    if rows is not None:
        write_rows(folder / "part-00000.parquet", rows, kinds["schema"])
    names = sorted(p.name for p in folder.iterdir() if p.is_file())
    files = tuple(describe_file(folder, name) for name in names if name != "manifest.json")
    manifest = Manifest(stage=stage, iteration=kinds.get("iteration"), config_digest="sha256:" + "0" * 64, files=files)
    write_manifest(folder, manifest)
    return ArtifactRef(path=path, digest=manifest.digest)


@dataclass(frozen=True)
class TrainingRun:
    """A run's folder with everything that the train stage of one iteration reads."""

    root: Path
    settings: TrainingSettings
    iteration: int = 0
    policy: Policy = field(default_factory=Policy)
    max_tokens: int = 16

    def with_settings(self, **changes: Any) -> "TrainingRun":
        return replace(self, settings=self.settings.model_copy(update=changes))

    def write(self, rollouts: Sequence[RolloutRow], judgements: Sequence[JudgementRow]) -> StageConfig:
        """Write the inputs; returns the configuration of the stage."""
        base = f"iterations/{self.iteration:03d}"
        inputs = {
            "model": write_artifact(self.root, "model", Stage.FETCH),
            "rollouts": write_artifact(self.root, f"{base}/rollouts", Stage.GENERATE, rollouts, schema=ROLLOUT),
            "judgements": write_artifact(self.root, f"{base}/judgements", Stage.JUDGE, judgements, schema=JUDGEMENT),
        }
        if self.policy.adapter is not None:
            inputs[self.policy.version] = self.policy.adapter
        params = TrainParams(
            training=self.settings,
            checkpoints=self.settings.checkpoints,
            policy=self.policy,
            temperature=1.0,
            max_tokens=self.max_tokens,
        )
        return StageConfig(run="test", iteration=self.iteration, inputs=inputs, params=params)

    def context(self, config: StageConfig, telemetry: Telemetry | None = None) -> StageContext[TrainParams]:
        """What the life of a stage would hand to `train.run`."""
        if not isinstance(config.params, TrainParams):
            raise TypeError("not a train stage")
        folder = self.root / config.folder
        folder.mkdir(parents=True, exist_ok=True)
        return attempt(config, self.root, telemetry=telemetry)


class StopAfterTwoSteps(Telemetry):
    """Asks the stage to stop, as SIGTERM does, when it sees the second optimiser step."""

    def __init__(self, stopping: threading.Event) -> None:
        super().__init__()
        self._stopping = stopping

    def progress(self, done: float, total: float) -> None:
        """Called by the stage with the steps taken so far."""
        super().progress(done, total)
        if done >= 2:
            self._stopping.set()
