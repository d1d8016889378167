"""bench-peer: the contenders get the same questions, sizes and settings, and unequal work is told."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peer
from benchmarks.peers.grpo import adapter_arguments, trainer_arguments
from benchmarks.peers.measurement import Contender, Measurement, describe_differences, summarise
from benchmarks.peers.ours import Size, build_run
from benchmarks.peers.plan import GENERATE, JUDGE, PeerError, Plan, Prompt, Report
from benchmarks.peers.questions import judge_candidates, judge_context
from benchmarks.peers.samples import Sample, read_rewards, read_samples, write_rewards, write_samples
from benchmarks.peers.stopwatch import Stopwatch
from dynalign_contract.config import JudgeParams
from dynalign_contract.layout import RunLayout
from dynalign_contract.records import ROLLOUT
from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_trainer.judge import stage
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.folder import load_tokenizer
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.session import Session
from dynalign_trainer.runtime.telemetry import Telemetry
from dynalign_trainer.scoring.contexts import Candidate
from dynalign_trainer.train.batch import build_batch
from lab.byte_tokenizer import write_byte_tokenizer
from lab.tiny_qwen3 import CHATML
from support.training_data import make_judgements, make_rollouts, write_artifact

SIZES = [Size(), Size(prompts=2, candidates=2, tokens=8), Size(prompts=6, candidates=3, tokens=8), Size(prompts=5)]


def plan_of(size: Size, model: Path = Path("/model")) -> Plan:
    """What the peers get for a run of this size."""
    spec = AlignmentRun.model_validate(build_run(size, model, Path("/prompts.jsonl"))).spec
    prompts = tuple(Prompt(prompt_id=f"p{n:03d}", text=f"How much is {n}?") for n in range(size.prompts))
    return Plan(
        model=model,
        prompts=prompts,
        seed=spec.seed,
        engine=spec.engine.model_copy(update={"max_length": 8192}),
        generation=spec.generation,
        judging=spec.judging,
        training=spec.training,
    )


@dataclass
class AskedEngine:
    """An engine that keeps the tokens of every question."""

    chat: ChatTemplate
    max_length: int
    asked: list[list[int]] = field(default_factory=list)

    @property
    def tokenizer(self) -> Any:
        return self.chat.tokenizer

    def for_stage(self, _telemetry: Telemetry) -> "AskedEngine":
        return self

    def forget_prefixes(self) -> None:
        """Nothing is cached."""

    def score_next(self, prompts: Sequence[Sequence[int]], tokens: Sequence[int], **_: object) -> list[list[float]]:
        self.asked += map(list, prompts)
        return score(prompts, tokens)


def score(prompts: Sequence[Sequence[int]], tokens: Sequence[int]) -> list[list[float]]:
    """Some log-probabilities, far below what would count as a digit."""
    return [[-20.0 - (sum(prompt) + token) % 7 for token in tokens] for prompt in prompts]


def test_the_peers_ask_what_the_judge_stage_asks_token_by_token(tmp_path: Path) -> None:
    marks, named = ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), {"eos_token": "<|im_end|>"}
    write_byte_tokenizer(tmp_path / "model", CHATML, marks=marks, named=named)
    plan, tokenizer = plan_of(Size(prompts=2, candidates=2, tokens=8)), load_tokenizer(tmp_path / "model")
    candidates = [
        Candidate(prompt.prompt_id, prompt.messages, text)
        for prompt in plan.prompts
        for text in ("It is so.", "Ask your neighbour, and <|im_end|> then decide.")
    ]
    rows: list[dict[str, Any]] = [
        {
            "prompt_id": one.prompt_id,
            "candidate": n % 2,
            "prompt_ids": [1],
            "completion_ids": [2, 3],
            "logprobs": [0.0, 0.0],
            "finish_reason": "stop",
            "policy": "base",
            "text": one.text,
            "messages": one.messages,
        }
        for n, one in enumerate(candidates)
    ]
    write_artifact(tmp_path, "rollouts", Stage.GENERATE, rows, schema=ROLLOUT)
    engine = AskedEngine(ChatTemplate(tokenizer), 8192)
    stage.run(stage_context(plan, tmp_path, engine))
    judged = judge_candidates(plan, tokenizer, candidates, score)
    assert judged.questions == engine.asked
    assert len(judged.questions) == plan.questions == 16


def stage_context(plan: Plan, root: Path, engine: AskedEngine) -> StageContext[JudgeParams]:
    """The judge's part of a fused rollout, whose engine runs already."""
    own = judge_context(plan)
    (root / "judgements").mkdir()
    session = Session(root, policies=(), engine=engine)
    return StageContext(
        config=own.config,
        params=own.params,
        layout=RunLayout(root),
        folder=root / "judgements",
        shard=0,
        inputs={"rollouts": (root / "rollouts",)},
        telemetry=Telemetry(),
        stopping=threading.Event(),
        session=session,
    )


@pytest.mark.parametrize("size", SIZES)
def test_trl_takes_as_many_steps_as_dynalign_on_as_many_answers_each(size: Size) -> None:
    plan = plan_of(size)
    rollouts = make_rollouts(size.prompts, size.candidates)
    batch = build_batch(rollouts, make_judgements(rollouts), plan.training, policy="base", seed=0)
    given = trainer_arguments(plan, Path("/out"))
    assert (plan.updates, given["max_steps"]) == (batch.steps, batch.steps)
    per_step = {step: sum(row["step"] == step for row in batch.rows) for step in range(batch.steps)}
    assert set(per_step.values()) == {given["per_device_train_batch_size"] * given["gradient_accumulation_steps"]}
    assert given["steps_per_generation"] * given["per_device_train_batch_size"] == len(rollouts)


def test_trl_has_the_settings_of_the_run() -> None:
    spec = AlignmentRun.model_validate(build_run(Size(), Path("/model"), Path("/prompts.jsonl"))).spec
    given, adapter = trainer_arguments(plan_of(Size()), Path("/out")), adapter_arguments(plan_of(Size()))
    assert (given["learning_rate"], given["num_generations"]) == (spec.training.learning_rate, 8)
    assert given["max_completion_length"] == spec.generation.max_tokens == 40
    assert spec.training.lora is not None
    assert tuple(adapter["target_modules"]) == spec.training.lora.target_modules
    assert (adapter["r"], adapter["lora_alpha"]) == (spec.training.lora.rank, spec.training.lora.alpha)


def test_a_plan_and_what_scripts_hand_on_are_read_as_they_were_written(tmp_path: Path) -> None:
    plan, sample = plan_of(Size()), Sample(prompt_id="p", prompt_ids=[1], completion_ids=[2], logprobs=[-0.5], text="a")
    plan.write(tmp_path / "plan.json")
    write_samples(tmp_path, [sample])
    write_rewards(tmp_path, [0.25])
    assert Plan.read(tmp_path / "plan.json") == plan
    assert (read_samples(tmp_path), read_rewards(tmp_path)) == ([sample], [0.25])


@pytest.mark.parametrize("prompts", [0, 25])
def test_more_prompts_than_there_are_texts_is_refused(tmp_path: Path, prompts: int) -> None:
    with pytest.raises(PeerError, match=f"--prompts is {prompts}; write a number from 1 to 24"):
        peer.write_prompts(tmp_path, Size(prompts=prompts))


def test_supplied_prompts_are_those_of_the_iteration_and_one_that_is_held_out(tmp_path: Path) -> None:
    assert len(peer.write_prompts(tmp_path, Size()).read_text().splitlines()) == 17


def measured(contender: Contender, number: int, wall: float, **report: Any) -> Measurement:
    plan = plan_of(Size())
    done = {"tokens": 5000, "questions": plan.questions, "updates": plan.updates, "prompts": "a", **report}
    return Measurement(contender, number, wall, wall + 10, 2 * wall, Report(seconds={JUDGE: 4.0}, **done))


def test_work_that_is_not_the_same_is_told() -> None:
    runs = [
        measured(Contender.DYNALIGN, 0, 10),
        measured(Contender.TRL, 0, 30, tokens=4600),
        measured(Contender.SCRIPTS, 0, 20, tokens=4400, questions=511, updates=3, prompts="b"),
    ]
    assert describe_differences(plan_of(Size()), runs[:2]) == []
    assert describe_differences(plan_of(Size()), runs) == [
        "scripts, round 1: 511 questions to the judge, not 512",
        "scripts, round 1: 3 updates, not 4",
        "scripts, round 1: 4400 sampled tokens, where another one has 5000",
        "scripts, round 1: its sampler got other prompts than dynalign's",
    ]


def test_ratios_are_medians_over_rounds_of_peer_by_ours() -> None:
    walls = {Contender.DYNALIGN: (10, 20, 10), Contender.TRL: (30, 50, 40), Contender.SCRIPTS: (20, 20, 10)}
    table, values, ratios = summarise(
        [measured(who, n, wall) for who, all_ in walls.items() for n, wall in enumerate(all_)]
    )
    assert (ratios["trl"], ratios["scripts"]) == (3.0, 1.0)
    assert (ratios["trl_command"], ratios["trl_cpu"]) == (2.0, 3.0)
    assert (values["trl_wall"], values["trl_judge"], values["trl_start"], values["trl_updates"]) == (40, 4, 36, 4)
    assert "Rounds: 3." in str(table.caption)
    assert "trl 3.00" in str(table.caption)


def test_a_part_within_a_part_counts_once() -> None:
    watch = Stopwatch()
    with watch.part(GENERATE):
        watch.timed(JUDGE, lambda: None)()
    assert set(watch.seconds) == {GENERATE, JUDGE}
    assert Report(seconds={JUDGE: 1.0}, tokens=3) + Report(seconds={JUDGE: 2.0}, questions=4) == Report(
        seconds={JUDGE: 3.0}, tokens=3, questions=4
    )
