"""The whole loop of a family on a CPU: `dynalign run` of two iterations on its random model, and what that leaves."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import yaml

from dynalign_contract.layout import ANSWERS_FILE, HELD_OUT_FILE, RunLayout, part_name
from dynalign_contract.records import ANSWER, PROMPT, ROLLOUT, AnswerRow, PromptRow, RolloutRow, read_rows
from dynalign_contract.settings import ChatSettings, Thinking
from dynalign_contract.stages import Stage
from lab.local_runs import LocalRun
from zoo.families import Family
from zoo.thinking import teach_thoughts

ITERATIONS: Final = 2
_OBJECTIVE: Final = """\
name: short
version: "1"
preamble: Be brief.
aspects: [{id: brevity, title: Brevity, definition: No word too many.}]
judge:
  context: "$rubric\\n$open\\n$prompt\\n$close\\n$open\\n$candidate\\n$close"
  question: "How brief is it?"
compare:
  message: "$open\\n$prompt\\n$close\\n$open\\n$a\\n$close\\n$open\\n$b\\n$close\\nWhich is briefer?"
  prefill: "Better answer: "
author: {message: "Ask about $topic.", opening: "Why"}
facets: {topic: [anything]}
"""
_TOPICS: Final = ("sky", "sea", "sun", "moon", "wind", "rain", "snow", "sand", "fire", "frost")
_QUESTIONS: Final = tuple(f"What colour has the {topic}?" for topic in _TOPICS)
_SPEC: Final[dict[str, Any]] = {
    "objective": {"configMapRef": {"name": "short"}},
    "iterations": ITERATIONS,
    "prompts": {
        "perIteration": 4,
        "refresh": "Once",
        "heldOut": 2,
        "maxTokens": 4000,
        "minCharacters": 4,
        "dedup": {"threshold": 1.0},
        # a random model writes no questions
        "supplied": {"uri": "./prompts.jsonl"},
    },
    "generation": {"candidates": 4, "maxTokens": 60},
    # a random model's next token is hardly ever a digit
    "judging": {"minMass": 0, "canaries": {"prompts": 1, "injections": 1}, "baseAgreementPrompts": 1},
    "training": {"learningRate": 2e-2, "lora": {"rank": 4}, "promptsPerStep": 2, "gradientCheckpointing": False},
    "evaluation": {"every": ITERATIONS},
    "export": {"policy": "Last"},
    "rollout": "Separate",
}


@dataclass(frozen=True)
class Loop:
    """A run of a family's model, which `run_loop` has brought to its end."""

    run: LocalRun
    chat: ChatSettings

    @property
    def layout(self) -> RunLayout:
        """The run's folders."""
        return RunLayout(self.run.workdir)

    @cached_property
    def answers(self) -> list[AnswerRow]:
        """Greedy answers to the held-out prompts: of the base model and of the policies of both iterations."""
        return read_rows(self.layout.stage(Stage.EVALUATE, ITERATIONS - 1) / ANSWERS_FILE, ANSWER)

    @cached_property
    def held_out(self) -> dict[str, PromptRow]:
        """Held-out prompts by id."""
        rows = read_rows(self.layout.stage(Stage.PROMPTS, 0) / HELD_OUT_FILE, PROMPT)
        return {row["prompt_id"]: row for row in rows}

    def rollouts(self, iteration: int) -> list[RolloutRow]:
        """The candidates of an iteration."""
        return read_rows(self.layout.stage(Stage.GENERATE, iteration) / part_name(0), ROLLOUT)

    def train_metric(self, metric: Any) -> list[float]:
        """A metric of the stage train, one value an iteration."""
        stages = [stage for entry in self.run.status.iterations for stage in entry.stages if stage.stage is Stage.TRAIN]
        return [
            found.value
            for stage in stages
            for found in stage.metrics
            if found.name == metric.name and found.value is not None
        ]


def run_loop(family: Family, thinking: Thinking, folder: Path) -> Loop:
    """Align a family's random model. Raises AssertionError with the logs where the run does not succeed."""
    chat = ChatSettings(thinking=thinking)
    source = family.write(folder / "model")
    if thinking is Thinking.ON:
        teach_thoughts(source, chat, _QUESTIONS)
    model = {"uri": str(source), "chat": {"thinking": thinking.value}}
    spec = _SPEC | {"model": model if family.quantiser is None else {**model, "quantized": "Dequantize"}}
    run = LocalRun(folder / "run.yaml", folder / "run")
    objects = [
        {"apiVersion": "dynalign.io/v1alpha1", "kind": "AlignmentRun", "metadata": {"name": "zoo"}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "short"},
            "data": {"objective.yaml": _OBJECTIVE},
        },
    ]
    rows = [{"prompt": question} for question in _QUESTIONS]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run.file.write_text(yaml.safe_dump_all(objects))
    result = run.finish()
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}\n{run.logs()}"
    return Loop(run, chat)
