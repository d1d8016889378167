"""The test-bed: a language model of under a million parameters whose judgement can be checked against a known rule.

Its weights are in `lab/testbed_model`, so that they are the same on every machine: training on another processor gives
others. `make testbed` trains one anew in about a minute and a half on two cores, on three tasks, each in the words of
the objective beside this file: write a question, answer it, rate an answer. What a test asserts has to hold for a model
of any seed: `make testbed SEED=1 FOLDER=/tmp/other`, then run the tests with `DYNALIGN_TESTBED=/tmp/other`.
"""

import argparse
import hashlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from dynalign_contract.objective import Objective, parse_objective
from lab.testbed_language import MANNERS, damage, draw_answer, rule
from lab.tiny_qwen3 import CHATML

OBJECTIVE = Path(__file__).with_name("testbed_objective.yaml")
SHIPPED = Path(__file__).with_name("testbed_model")
VARIABLE = "DYNALIGN_TESTBED"
DIGESTS = "SHA256SUMS"
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


def load_testbed() -> Testbed:
    """The test-bed that ships with these tests, or the one in the folder that DYNALIGN_TESTBED names.

    Raises:
        ValueError: the files are not those that the list of digests in the folder names.
    """
    folder = Path(os.environ.get(VARIABLE) or SHIPPED)
    problems = check_digests(folder)
    if problems:
        raise ValueError(f"{folder}: {'; '.join(problems)}: fetch the file anew, or train a test-bed by `make testbed`")
    return Testbed(model=folder, objective=OBJECTIVE, rule=rule)


def check_digests(folder: Path) -> list[str]:
    """What in a folder differs from its list of digests (`sha256sum --check` reads it, too)."""
    listed = folder / DIGESTS
    if not listed.is_file():
        return [f"there is no {DIGESTS}"]
    lines = (line.split("  ", 1) for line in listed.read_text().splitlines())
    wanted = {name: digest for digest, name in lines}
    found = _digests(folder)
    return [
        *(f"{name} is missing" for name in wanted.keys() - found.keys()),
        *(f"{name} is not listed in {DIGESTS}" for name in found.keys() - wanted.keys()),
        *(f"{name} has other content" for name in wanted.keys() & found.keys() if wanted[name] != found[name]),
    ]


def _digests(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.iterdir() if path.name != DIGESTS)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


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
    """Token ids, attention mask and labels, each (examples, longest); labels of user turn and padding are -100."""
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
    """Train by AdamW, learning rate rising, then falling linearly to zero; calls `report(step, loss)` each step."""
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
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        report(step, loss.item())
    model.eval()


def write_testbed(folder: Path, recipe: Recipe) -> None:
    """Train a model and write its folder with the list of digests, in place of what was there."""
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
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        written = Path(temporary)
        for path in written.iterdir():
            path.chmod(0o644)
        lines = [f"{digest}  {name}\n" for name, digest in _digests(written).items()]
        (written / DIGESTS).write_text("".join(lines))
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(written, folder)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="lab.testbed", description="Train the test-bed's model.")
    parser.add_argument("folder", type=Path, nargs="?", default=SHIPPED, help="where the model's files go")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="of the first weights and of the examples")
    options = parser.parse_args()
    write_testbed(options.folder, Recipe(seed=options.seed))


if __name__ == "__main__":
    _main()
