"""A run's folder with a model, answers in the test-bed's language and perhaps an adapter, and stages run on it."""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Protocol

from dynalign_contract.config import Params, Policy, StageConfig
from dynalign_contract.layout import HELD_OUT_FILE
from dynalign_contract.objective import Objective, parse_objective
from dynalign_contract.records import PROMPT, ROLLOUT, PromptRow, RolloutRow, write_rows
from dynalign_contract.result import ArtifactRef, StageResult
from dynalign_contract.settings import EngineSettings
from dynalign_contract.stages import Stage
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.runtime.lifecycle import Place, run_stage
from lab.testbed import OBJECTIVE, Example, encode, judge_message
from lab.testbed_language import MANNERS, OBJECTS, damage, draw_answer, draw_worst_answer, rule
from support.training_data import write_artifact


class WriteAdapter(Protocol):
    """Writes an adapter of a model's folder into a folder."""

    def __call__(self, model: Path, folder: Path, *, seed: int = 0) -> None: ...


def rule_objective() -> Objective:
    return parse_objective(OBJECTIVE.read_text())


def draw_question(objective: Objective, draw: random.Random) -> tuple[str, str, str]:
    """Question, view and topic."""
    view, topic = (draw.choice(objective.facets[name]) for name in ("view", "topic"))
    return f"Explain {view} {topic} {draw.choice(MANNERS)}.", view, topic


def written_rollouts(
    model: Path, objective: Objective, *, prompts: int, candidates: int, seed: int = 0
) -> list[RolloutRow]:
    """Answers of very different worth, as if a policy had sampled them."""
    tokenizer = load_tokenizer(model)
    draw = random.Random(seed)
    rows: list[RolloutRow] = []
    for prompt in range(prompts):
        question, view, topic = draw_question(objective, draw)
        for candidate in range(candidates):
            text = draw_answer(draw, view, topic)
            ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
            rows.append(
                {
                    "prompt_id": f"p{prompt:03d}",
                    "candidate": candidate,
                    "prompt_ids": [1],
                    "completion_ids": ids,
                    "logprobs": [0.0] * len(ids),
                    "finish_reason": "stop",
                    "policy": "base",
                    "text": text,
                    "messages": [{"role": "user", "content": question}],
                }
            )
    return rows


def held_out_prompts(objective: Objective, count: int, *, seed: int = 1) -> list[PromptRow]:
    draw = random.Random(seed)
    return [
        {
            "prompt_id": f"h{index:03d}",
            "messages": [{"role": "user", "content": draw_question(objective, draw)[0]}],
            "source": "agents",
            "facets": {},
            "critic_score": float("nan"),
            "agents": {},
            "draft_id": "",
            "draft": "",
            "draft_score": float("nan"),
        }
        for index in range(count)
    ]


def write_random_adapter(model: Path, folder: Path, *, seed: int = 0) -> None:
    """A LoRA adapter of random weights, large enough to spoil what the model has learnt."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(r=8, lora_alpha=64, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(folder)


def write_worse_adapter(model: Path, folder: Path, *, seed: int = 0) -> None:
    """A LoRA adapter that was taught empty words: its answers are in the test-bed's language, and worth next to nothing.

    Its judge knows such answers, whatever its seed; what it makes of the noise of `write_random_adapter` depends on it.
    """
    objective = rule_objective()

    def draw_example(draw: random.Random) -> Example:
        question, view, topic = draw_question(objective, draw)
        return Example(question, draw_worst_answer(draw, view, topic))

    _teach(model, draw_example, seed).save_pretrained(folder)


def write_contrary_adapter(model: Path, folder: Path, *, seed: int = 0) -> None:
    """A LoRA adapter that was taught to rate by the contrary of the rule: a judge that no gate should let pass."""
    objective = rule_objective()

    def draw_example(draw: random.Random) -> Example:
        question, view, topic = draw_question(objective, draw)
        answer = draw_answer(draw, view, topic)
        shown = damage(draw, answer) if draw.random() < 0.5 else answer
        return Example(judge_message(objective, question, shown), f"{objective.judge.prefill}{9 - rule(shown):.0f}")

    _teach(model, draw_example, seed).save_pretrained(folder)


def write_author(model: Path, folder: Path, objective: Objective, *, seed: int = 0) -> None:
    """A copy of the test-bed's model that ends, by a word of its own language, what another objective's author begins."""

    def draw_example(draw: random.Random) -> Example:
        facets = {name: draw.choice(values) for name, values in objective.facets.items()}
        asked, opening = (
            Template(text).substitute(facets) for text in (objective.author.message, objective.author.opening)
        )
        return Example(asked, f"{opening} {draw.choice(OBJECTS)}.")

    shutil.copytree(model, folder)
    _teach(model, draw_example, seed).merge_and_unload().save_pretrained(folder)


def _teach(model: Path, draw_example: Callable[[random.Random], Example], seed: int) -> Any:
    """The model with a LoRA adapter after some seconds of supervised training, as peft has it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    draw, tokenizer = random.Random(seed), load_tokenizer(model)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"])
    taught = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    optimizer = torch.optim.AdamW(taught.parameters(), lr=1e-2)
    for _ in range(80):
        ids, mask, labels = encode(tokenizer, [draw_example(draw) for _ in range(8)])
        optimizer.zero_grad(set_to_none=True)
        taught(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
    return taught


@dataclass(frozen=True)
class StageRun:
    """Stages of a run's first iteration, each in the life that `dynalign-stage` gives it."""

    root: Path
    model: ArtifactRef
    window: int = 512

    @classmethod
    def of(cls, root: Path, model: Path, window: int = 512) -> "StageRun":
        shutil.copytree(model, root / "model")
        return cls(root, _describe(root, "model"), window)

    def adapter(self, seed: int = 0, write: WriteAdapter = write_random_adapter) -> Policy:
        """A policy of this iteration, whose adapter is written by `write`."""
        path = f"adapters/{seed}"
        write(self.root / "model", self.root / path, seed=seed)
        return Policy(version=f"iteration-{seed:03d}", adapter=write_artifact(self.root, path, Stage.TRAIN))

    def rollouts(self, rows: Sequence[RolloutRow]) -> ArtifactRef:
        return write_artifact(self.root, "rollouts", Stage.GENERATE, rows, schema=ROLLOUT)

    def held_out(self, rows: Sequence[PromptRow]) -> ArtifactRef:
        write_rows(self.root / "prompts" / HELD_OUT_FILE, rows, PROMPT)
        return write_artifact(self.root, "prompts", Stage.PROMPTS)

    def config(
        self, params: Params, inputs: dict[str, ArtifactRef], policies: Sequence[Policy] = (), shards: int = 1
    ) -> StageConfig:
        adapters = {policy.version: policy.adapter for policy in policies if policy.adapter is not None}
        return StageConfig(
            run="test",
            iteration=0,
            shards=shards,
            engine=EngineSettings(max_length=self.window),
            inputs={"model": self.model, **inputs, **adapters},
            params=params,
        )

    def execute(self, config: StageConfig, shard: int = 0) -> StageResult:
        (self.root / "stage.json").write_text(config.to_json())
        code = run_stage(self.root / "stage.json", self.root, self.root / "result", Place(index=shard))
        result = StageResult.decode((self.root / "result").read_bytes())
        assert result.exit_code == code
        return result


def _describe(root: Path, path: str) -> ArtifactRef:
    return write_artifact(root, path, Stage.FETCH)


def metrics_of(result: StageResult) -> dict[str, float | None]:
    return {metric.name: metric.value for metric in result.metrics}
