"""Work folders of runs as stages leave them, in seconds and without a model: what `dynalign report` reads."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from dynalign_contract.config import BASE_POLICY, policy_version
from dynalign_contract.estimate import Estimate
from dynalign_contract.layout import (
    ANSWERS_FILE,
    BATCH_FILE,
    COMPARISONS_FILE,
    DRAFTS_FILE,
    PROMPTS_FILE,
    YIELD_FILE,
    RunLayout,
    part_name,
)
from dynalign_contract.manifest import Manifest, describe_file, write_manifest
from dynalign_contract.metrics import (
    EvaluateMetrics,
    GenerateMetrics,
    JudgeMetrics,
    MetricDef,
    TrainMetrics,
)
from dynalign_contract.prompt_yield import PromptYields
from dynalign_contract.records import (
    ANSWER,
    BATCH,
    COMPARISON,
    DRAFT,
    JUDGEMENT,
    PROMPT,
    ROLLOUT,
    Table,
    write_rows,
)
from dynalign_contract.result import Metric
from dynalign_contract.stages import Stage
from dynalign_operator.api.status import AlignmentRunStatus, Condition, ConditionType, Phase
from support.builders import T0, a_run

Values = dict[MetricDef[Any], float | None]


@dataclass(frozen=True)
class WorkFolder:
    """A run's folder in the making."""

    name: str = "r"
    iterations: int = 2
    prompts: int = 3
    candidates: int = 2
    answer: str = "Answer"
    """How every answer begins."""
    question: str = "How can I"
    phase: Phase = Phase.SUCCEEDED
    sentence: str = "The run is complete and its model is exported."
    last_stage: Stage = Stage.EVALUATE
    """The last stage of the last iteration that has finished."""
    thought: str = ""
    rates: tuple[float, ...] = field(default=())
    """Win rate of each iteration; by default it rises."""

    def named(self, name: str) -> WorkFolder:
        return replace(self, name=name)

    def of_size(self, iterations: int, prompts: int, candidates: int) -> WorkFolder:
        return replace(self, iterations=iterations, prompts=prompts, candidates=candidates)

    def answering(self, text: str) -> WorkFolder:
        return replace(self, answer=text)

    def thinking(self, text: str) -> WorkFolder:
        return replace(self, thought=text)

    def failed(self, sentence: str, after: Stage) -> WorkFolder:
        return replace(self, phase=Phase.FAILED, sentence=sentence, last_stage=after)

    def running(self, sentence: str, after: Stage) -> WorkFolder:
        return replace(self, phase=Phase.RUNNING, sentence=sentence, last_stage=after)

    def write(self, root: Path) -> Path:
        """Write it all; returns the folder."""
        root.mkdir(parents=True, exist_ok=True)
        run = a_run().named(self.name).with_iterations(max(1, self.iterations)).with_status(self._status()).build()
        (root / "run.json").write_text(run.to_json())
        for iteration in range(self.iterations):
            for stage in self._finished(iteration):
                self._write_stage(root, stage, iteration)
        return root

    def write_rows_of(self, stage: Stage, iteration: int, folder: Path) -> None:
        """Write the rows that a stage leaves in its folder, without a manifest; nothing for a stage that leaves none."""
        match stage:
            case Stage.PROMPTS:
                self._rows(folder, PROMPTS_FILE, PROMPT, self._prompts(iteration))
                self._rows(folder, DRAFTS_FILE, DRAFT, [])
                (folder / YIELD_FILE).write_text(PromptYields().to_json())
            case Stage.GENERATE:
                self._rows(folder, part_name(0), ROLLOUT, self._rollouts(iteration))
            case Stage.JUDGE:
                self._rows(folder, part_name(0), JUDGEMENT, self._judgements(iteration))
            case Stage.EVALUATE:
                self._rows(folder, ANSWERS_FILE, ANSWER, self._answers(iteration))
                self._rows(folder, COMPARISONS_FILE, COMPARISON, self._comparisons(iteration))

    def prompt_id(self, iteration: int, number: int) -> str:
        return f"{iteration:03d}-{number:05d}"

    def reward(self, iteration: int, number: int, candidate: int) -> float:
        return round((iteration + number + candidate) / (self.iterations + self.prompts + self.candidates), 4)

    def _status(self) -> AlignmentRunStatus:
        stalled = self.phase is Phase.FAILED
        told = Condition(
            type=ConditionType.STALLED if stalled else ConditionType.PROGRESSING,
            status="True",
            reason="Because",
            message=self.sentence,
            last_transition_time=T0,
        )
        return AlignmentRunStatus(phase=self.phase, progress=f"{self.iterations}/{self.iterations}", conditions=(told,))

    def _finished(self, iteration: int) -> list[Stage]:
        stages = [Stage.GENERATE, Stage.JUDGE, Stage.TRAIN, Stage.EVALUATE]
        if iteration < self.iterations - 1:
            return stages
        return stages[: stages.index(self.last_stage) + 1] if self.last_stage in stages else []

    def _write_stage(self, root: Path, stage: Stage, iteration: int) -> None:
        layout = RunLayout(root)
        folder = layout.stage(stage, iteration)
        if stage is Stage.TRAIN:
            self._rows(layout.batch(iteration), BATCH_FILE, BATCH, self._batch(iteration))
        self.write_rows_of(stage, iteration, folder)
        _finish(folder, stage, iteration, self._measured(stage, iteration))

    def _measured(self, stage: Stage, iteration: int) -> Values:
        match stage:
            case Stage.GENERATE:
                return {GenerateMetrics.mean_length: 10 + iteration}
            case Stage.JUDGE:
                return _judged(iteration)
            case Stage.TRAIN:
                return {TrainMetrics.kl: 0.01 * iteration, TrainMetrics.entropy: 2.0 - 0.1 * iteration}
            case _:
                return self._evaluated(iteration)

    def _rows(self, folder: Path, name: str, table: Table[Any], rows: list[dict[str, Any]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(folder / name, rows, table)

    def _each(self, iteration: int) -> list[tuple[str, int, float, str]]:
        return [
            (
                self.prompt_id(iteration, number),
                candidate,
                self.reward(iteration, number, candidate),
                f"{self.question} {number}?",
            )
            for number in range(self.prompts)
            for candidate in range(self.candidates)
        ]

    def _prompts(self, iteration: int) -> list[dict[str, Any]]:
        return [
            {
                "prompt_id": self.prompt_id(iteration, number),
                "messages": [{"role": "user", "content": f"{self.question} {number}?"}],
                "source": "agents",
                "facets": {"topic": "sleep"},
                "critic_score": 6.25,
                "agents": {"author": BASE_POLICY},
                "draft_id": f"train-0-{number:05d}",
                "draft": "",
                "draft_score": float("nan"),
            }
            for number in range(self.prompts)
        ]

    def _rollouts(self, iteration: int) -> list[dict[str, Any]]:
        thought = {"thought": self.thought, "thought_tokens": 1} if self.thought else {}
        return [
            {
                "prompt_id": prompt_id,
                "candidate": candidate,
                "prompt_ids": [1],
                "completion_ids": [2, 3],
                "logprobs": [-0.5, -0.5],
                "finish_reason": "length" if candidate else "stop",
                "policy": BASE_POLICY,
                "text": f"{self.answer} {candidate} to {question}",
                "messages": [{"role": "user", "content": question}],
                **thought,
            }
            for prompt_id, candidate, _, question in self._each(iteration)
        ]

    def _judgements(self, iteration: int) -> list[dict[str, Any]]:
        return [
            {
                "prompt_id": prompt_id,
                "candidate": candidate,
                "scores": [{"aspect": "knowledge", "score": 9 * reward, "mass": 0.99}],
                "raw_reward": reward,
                "penalties": {},
                "reward": reward,
                "reward_error": float("nan"),
                "retries": 0,
                "judge": BASE_POLICY,
            }
            for prompt_id, candidate, reward, _ in self._each(iteration)
        ]

    def _batch(self, iteration: int) -> list[dict[str, Any]]:
        return [
            {
                "step": 0,
                "prompt_id": prompt_id,
                "candidate": candidate,
                "prompt_ids": [1],
                "completion_ids": [2, 3],
                "logprobs": [-0.5, -0.5],
                "reward": reward,
                "advantage": reward - 0.5,
                "masked": False,
            }
            for prompt_id, candidate, reward, _ in self._each(iteration)
        ]

    def _answers(self, iteration: int) -> list[dict[str, Any]]:
        return [
            {
                "prompt_id": f"heldout-{number:05d}",
                "policy": policy,
                "messages": [{"role": "user", "content": f"{self.question} hold {number}?"}],
                "completion_ids": [2, 3],
                "finish_reason": "stop",
                "text": f"{self.answer} of {policy} {'anew' if policy != BASE_POLICY and number else 'as ever'}",
            }
            for number in range(self.prompts)
            for policy in (BASE_POLICY, policy_version(iteration))
        ]

    def _comparisons(self, iteration: int) -> list[dict[str, Any]]:
        return [
            {
                "prompt_id": f"heldout-{number:05d}",
                "policy": policy_version(iteration),
                "opponent": "base",
                "opponent_policy": BASE_POLICY,
                "judge": "base",
                "method": "Pairwise",
                "first": 0.9,
                "second": 0.8,
                "outcome": (1.0, 0.5, 0.0)[number % 3],
                "length_difference": 0,
            }
            for number in range(self.prompts)
        ]

    def _evaluated(self, iteration: int) -> Values:
        rate = self.rates[iteration] if self.rates else 0.55 + 0.05 * iteration
        return {
            **EvaluateMetrics.win_rate.split(Estimate(value=rate, low=rate - 0.1, high=rate + 0.1)),
            **EvaluateMetrics.capability_delta.split(Estimate(value=0.01, low=-0.02, high=0.04)),
            **EvaluateMetrics.held_out_reward.split(Estimate(value=0.5 + 0.02 * iteration, low=0.45, high=0.6)),
            **EvaluateMetrics.held_out_reward_delta.split(Estimate(value=0.02 * iteration, low=-0.01, high=0.05)),
        }


def _judged(iteration: int) -> Values:
    return {
        JudgeMetrics.reward: 0.4 + 0.05 * iteration,
        JudgeMetrics.aspect_reward.of("knowledge"): 0.5,
        JudgeMetrics.aspect_reward.of("vitality"): 0.6,
        JudgeMetrics.canary_auc: 0.9,
        JudgeMetrics.injection_auc: 0.8,
    }


def _finish(folder: Path, stage: Stage, iteration: int, values: Values) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = tuple(describe_file(folder, path.name) for path in sorted(folder.iterdir()))
    metrics = tuple(Metric(name=metric.name, value=value) for metric, value in values.items())
    manifest = Manifest(
        stage=stage,
        iteration=iteration,
        config_digest="sha256:x",
        files=files,
        metrics=metrics,
        producers={"dynalign": "1"},
        seconds=61.0,
    )
    write_manifest(folder, manifest)


def a_work_folder() -> WorkFolder:
    return WorkFolder()


def rows_in(page: str, chunk: str) -> list[dict[str, Any]]:
    """The rows of a compressed chunk of a page."""
    found = re.search(rf'<script type="text/plain" id="{chunk}">([^<]*)</script>', page)
    if found is None:
        raise AssertionError(f"the page has no chunk {chunk}")
    return cast("list[dict[str, Any]]", json.loads(gzip.decompress(base64.b64decode(found[1]))))


def data_of(page: str) -> dict[str, Any]:
    """The page's charts and index of chunks."""
    found = re.search(r'<script type="application/json" id="report-data">([^<]*)</script>', page)
    if found is None:
        raise AssertionError("the page has no data")
    return cast("dict[str, Any]", json.loads(found[1]))
