"""The test-bed: a language model of under a million parameters whose judgement can be checked against a known rule.

It is pretrained from nothing in about a minute and a half on two cores, on three tasks, each in the words of the
objective beside this file: write a question, answer it, rate an answer. `python -m support.testbed FOLDER` makes the
model by hand; `make_testbed()` keeps it in the cache below `DYNALIGN_CACHE`.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template
from typing import Any

from filelock import FileLock

from dynalign_contract.objective import Objective, parse_objective
from support.testbed_language import MANNERS, damage, draw_answer, rule
from support.tiny_qwen3 import CHATML

OBJECTIVE = Path(__file__).with_name("testbed_objective.yaml")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class Recipe:
    """What decides the weights."""

    steps: int = 600
    batch: int = 16
    learning_rate: float = 1e-3
    warmup: int = 50
    hidden: int = 128
    layers: int = 3
    vocabulary: int = 640
    window: int = 1024
    seed: int = 0
    initial_std: float = 0.02


@dataclass(frozen=True)
class Testbed:
    """A model, the objective that it was made for, and the rule that its judge has learnt."""

    __test__ = False
    model: Path
    """Hugging Face folder, ready for the fetch stage."""
    objective: Path
    """The objective's YAML."""
    rule: Callable[[str], float]
    """What an answer is really worth, 0 to 9."""


def make_testbed() -> Testbed:
    """The test-bed from the cache; made first where it is not there yet, in a process of its own."""
    cache = Path(os.environ.get("DYNALIGN_CACHE") or Path.home() / ".cache" / "dynalign")
    folder = cache / "testbed" / _recipe_digest(Recipe())
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            _make_apart(folder)
    return Testbed(model=folder, objective=OBJECTIVE, rule=rule)


def _make_apart(folder: Path) -> None:
    """Pretrain in a process of its own, on all cores."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    # threads that spin while they wait starve each other when the other core is busy
    environment = os.environ | {"PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE"}
    environment.pop("OMP_NUM_THREADS", None)
    subprocess.run([sys.executable, "-m", "support.testbed", str(folder)], check=True, env=environment)


def _recipe_digest(recipe: Recipe) -> str:
    here = Path(__file__)
    sources = [here, OBJECTIVE, here.with_name("testbed_language.py")]
    parts = [json.dumps(asdict(recipe)).encode(), *(path.read_bytes() for path in sources)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


@dataclass(frozen=True)
class Example:
    """One chat of two turns."""

    user: str
    assistant: str


def draw_example(rng: random.Random, objective: Objective) -> Example:
    """One example of the three tasks; most are ratings, the hardest one."""
    view, topic = (rng.choice(objective.facets[name]) for name in ("view", "topic"))
    question = f"Explain {view} {topic} {rng.choice(MANNERS)}."
    task = rng.random()
    if task < 0.05:
        return Example(Template(objective.author.message).substitute(view=view, topic=topic), question)
    answer = draw_answer(rng, view, topic)
    if task < 0.2:
        return Example(question, answer)
    shown = damage(rng, answer) if rng.random() < 0.1 else answer
    return Example(judge_message(objective, question, shown), f"{objective.judge.prefill}{rule(shown):.0f}")


def judge_message(objective: Objective, question: str, answer: str) -> str:
    """What the judge is asked about an answer."""
    (aspect,) = objective.aspects
    context = Template(objective.judge.context).substitute(prompt=question, candidate=answer)
    return f"{context}\n\n{Template(objective.judge.question).substitute(title=aspect.title)}"


def build_tokenizer(recipe: Recipe, texts: Iterator[str]) -> Any:
    """A byte-level BPE tokenizer that writes every digit as a token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    pad, start, end = SPECIAL
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end,
        pad_token=pad,
        additional_special_tokens=[start],
        model_max_length=recipe.window,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHATML
    return wrapped


def build_model(recipe: Recipe, tokenizer: Any) -> Any:
    """A Qwen3 with random weights, float32."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(recipe.seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=64,
        intermediate_size=4 * recipe.hidden,
        max_position_embeddings=recipe.window,
        tie_word_embeddings=True,
        initializer_range=recipe.initial_std,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config).float()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def encode(tokenizer: Any, examples: list[Example]) -> tuple[Any, Any, Any]:
    """Token ids, attention mask and labels, each (examples, longest); labels are -100 on the user's turn and padding."""
    import torch

    ids, labels = [], []
    for example in examples:
        before = tokenizer.apply_chat_template(
            [{"role": "user", "content": example.user}], add_generation_prompt=True, return_dict=False
        )
        after = [*tokenizer.encode(example.assistant, add_special_tokens=False), tokenizer.eos_token_id]
        ids.append(torch.tensor([*before, *after]))
        labels.append(torch.tensor([-100] * len(before) + after))
    pad = torch.nn.utils.rnn.pad_sequence
    mask = pad([torch.ones_like(row) for row in ids], batch_first=True)
    padded = pad(ids, batch_first=True, padding_value=tokenizer.pad_token_id)
    return padded, mask, pad(labels, batch_first=True, padding_value=-100)


def pretrain(
    recipe: Recipe, model: Any, tokenizer: Any, objective: Objective, report: Callable[[int, float], None]
) -> None:
    """Train by AdamW, learning rate rising, then falling linearly to zero; calls `report(step, loss)` after each step."""
    import torch

    rng = random.Random(recipe.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / recipe.warmup, (recipe.steps - step) / (recipe.steps - recipe.warmup))
    )
    model.train()
    for step in range(recipe.steps):
        ids, mask, labels = encode(tokenizer, [draw_example(rng, objective) for _ in range(recipe.batch)])
        hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state[:, :-1]
        told = labels[:, 1:] != -100
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[told]), labels[:, 1:][told])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        report(step, loss.item())
    model.eval()


def write_testbed(folder: Path, recipe: Recipe) -> None:
    """Pretrain and write the model folder; it appears when it is whole."""
    import torch

    torch.set_num_threads(min(2, len(os.sched_getaffinity(0))))
    objective = parse_objective(OBJECTIVE.read_text())
    rng = random.Random(recipe.seed + 1)
    drawn = (draw_example(rng, objective) for _ in range(2000))
    tokenizer = build_tokenizer(recipe, (f"user\n{e.user}\nassistant\n{e.assistant}" for e in drawn))
    model = build_model(recipe, tokenizer)
    started = time.monotonic()

    def report(step: int, loss: float) -> None:
        if step % 100 == 99:
            print(f"step {step + 1} of {recipe.steps}, loss {loss:.3f}, {time.monotonic() - started:.0f} s", flush=True)  # noqa: T201 - a program for people

    pretrain(recipe, model, tokenizer, objective, report)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        if not folder.is_dir():
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    write_testbed(Path(sys.argv[1]), Recipe())
