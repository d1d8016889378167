"""`make bench-judge`: what it saves to ask the judge about the four aspects last, with the prefix cache.

The bundled SmolLM2-135M-Instruct judges answers of its own by `collective-agency`, in two ways and by turns. *Shared*:
the judge stage's way, all aspects of a candidate and all candidates of a prompt one after another, so that objective,
prompt and candidate are computed once. *Naive*: the very same questions, aspect after aspect, each computed whole. One
engine does both, so that weights, kernels and batch sizes are the same; the scores must be, too.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.table import Column, Table

from benchmarks.report import print_report, this_machine
from dynalign_contract.config import JudgeParams, Policy, StageConfig
from dynalign_contract.errors import StageError
from dynalign_contract.objective import Objective, builtin_objective
from dynalign_contract.settings import EngineSettings, JudgingSettings
from dynalign_trainer.fetch.bundled import fetch_bundled
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.choices import expected_digit
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.engine_model import EngineModel
from dynalign_trainer.models.opening import start_engine
from dynalign_trainer.runtime.progress import Watch
from dynalign_trainer.scoring.contexts import Candidate
from dynalign_trainer.scoring.pointwise import PointwiseJudge
from lab.stage_attempts import attempt

NAME: Final = "bench-judge"
MODEL: Final = "smollm2-135m-instruct"
PROMPTS, CANDIDATES, TOKENS, PAIRS = 4, 4, 64, 5
QUESTIONS: Final = (
    "Our village has one well and two farms that need it. How should we share the water?",
    "I want to learn to repair radios although I have no money. Where do I begin?",
    "My neighbour asks me to hide a mistake in the accounts of our club. What should I do?",
    "A school wants to ban phones. Help the pupils to make a proposal of their own.",
    "How can a small library stay useful when everybody reads on a screen?",
    "I lead a team that has lost its courage after a failure. What would help?",
    "Explain to a child why some medicines work only for some people.",
    "Two friends disagree about moving to the city. How can they decide well?",
)


@dataclass
class Recorder:
    """An engine for a Judge that keeps what it is asked, and answers as the engine does."""

    engine: Engine
    asked: list[tuple[list[int], list[int]]] = field(default_factory=list)
    """Prompt and wanted tokens of each question, in the judge's order."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def score_next(
        self, prompts: Sequence[Sequence[int]], tokens: Sequence[int], *, policy: Policy, watch: Watch | None = None
    ) -> list[list[float]]:
        """Keep the questions and pass them on."""
        self.asked += [(list(prompt), list(tokens)) for prompt in prompts]
        return self.engine.score_next(prompts, tokens, policy=policy, watch=watch)


@dataclass(frozen=True)
class Measurement:
    """One pass over all candidates."""

    seconds: float
    computed: int
    """Prompt tokens that were computed."""
    scores: tuple[float, ...]
    """Expected digits, 0 to 9, in the judge's order."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when everything was measured, 1 with a sentence when it could not be."""
    parser = argparse.ArgumentParser(prog=NAME, description="Judging with and without shared prefixes.")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="passes of each way")
    parser.add_argument("--prompts", type=int, default=PROMPTS, choices=range(1, len(QUESTIONS) + 1))
    parser.add_argument("--candidates", type=int, default=CANDIDATES, help="of each prompt")
    options = parser.parse_args(arguments)
    machine = this_machine()
    objective = builtin_objective("collective-agency")
    try:
        with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as folder:
            engine = open_engine(Path(folder), objective)
            candidates = write_candidates(engine, options.prompts, options.candidates)
            questions = record(engine, objective, candidates)
            shared, naive = measure(engine, questions, len(objective.aspects), options.pairs)
    except StageError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    table, values, ratios = summarise(shared, naive, sum(len(prompt) for prompt, _ in questions))
    print_report(NAME, machine, table, values, ratios)
    return 0


def open_engine(root: Path, objective: Objective) -> Engine:
    """The engine as the judge stage starts it. Raises StageError when the model is not installed."""
    model = root / "model"
    model.mkdir()
    fetch_bundled(MODEL, model, lambda _done, _total: None)
    params = JudgeParams(objective=objective, judging=JudgingSettings(), max_tokens=TOKENS, prompts_per_part=PROMPTS)
    config = StageConfig(run="bench", iteration=0, engine=EngineSettings(max_length=2048), params=params)
    return start_engine(attempt(config, root, inputs={"model": model}), [Policy()])


def write_candidates(engine: Engine, prompts: int, candidates: int) -> list[Candidate]:
    """Answers of the model itself."""
    chats: list[list[Any]] = [[{"role": "user", "content": text}] for text in QUESTIONS[:prompts]]
    groups = engine.sample(
        [engine.chat.encode(chat) for chat in chats],
        Sampling(temperature=1.0, max_tokens=TOKENS, n=candidates),
        policy=Policy(),
        seeds=range(0, 1000 * prompts, 1000),
    )
    return [
        Candidate(f"p{index}", chat, sample.text)
        for index, (chat, group) in enumerate(zip(chats, groups, strict=True))
        for sample in group
    ]


def record(engine: Engine, objective: Objective, candidates: Sequence[Candidate]) -> list[tuple[list[int], list[int]]]:
    """The first questions that the judge asks about these candidates, retries left out."""
    recorder = Recorder(engine)
    model = EngineModel(recorder, Policy())  # type: ignore[arg-type]
    judge = PointwiseJudge(model, objective, JudgingSettings(min_mass=0.0), seed=lambda *_: 7)
    judge.score(candidates)
    return recorder.asked[: len(candidates) * len(objective.aspects)]


def measure(
    engine: Engine, questions: Sequence[tuple[list[int], list[int]]], aspects: int, pairs: int
) -> tuple[list[Measurement], list[Measurement]]:
    """Passes of both ways by turns; the first of each, in which kernels and memory warm up, is not kept."""
    in_order = list(range(len(questions)))
    by_aspect = sorted(in_order, key=lambda i: i % aspects)
    shared, naive = [], []
    for _ in range(pairs + 1):
        shared.append(ask(engine, questions, in_order, share_prefixes=True))
        naive.append(ask(engine, questions, by_aspect, share_prefixes=False))
        sys.stderr.write(f"shared {shared[-1].seconds:.1f} s, naive {naive[-1].seconds:.1f} s\n")
    return shared[1:], naive[1:]


def ask(
    engine: Engine, questions: Sequence[tuple[list[int], list[int]]], order: Sequence[int], *, share_prefixes: bool
) -> Measurement:
    """Ask all questions in this order, from an empty prefix cache."""
    engine.forget_prefixes()
    cached, started = engine.cached_tokens, time.monotonic()
    prompts, digits = [questions[i][0] for i in order], questions[0][1]
    rows = engine.score_next(prompts, digits, policy=Policy(), share_prefixes=share_prefixes)
    seconds = time.monotonic() - started
    scores = dict(zip(order, (expected_digit(row)[0] for row in rows), strict=True))
    return Measurement(
        seconds=seconds,
        computed=sum(map(len, prompts)) - (engine.cached_tokens - cached),
        scores=tuple(scores[i] for i in range(len(questions))),
    )


def summarise(
    shared: Sequence[Measurement], naive: Sequence[Measurement], tokens: int
) -> tuple[Table, dict[str, float], dict[str, float]]:
    """The table, and values and ratios of the JSON line. Every ratio is the median over pairs of shared / naive."""
    pairs = list(zip(shared, naive, strict=True))
    apart = max(abs(a - b) for ours, theirs in pairs for a, b in zip(ours.scores, theirs.scores, strict=True))
    table = Table("way", *(Column(name, justify="right") for name in ("passes", "computed tokens", "seconds")))
    values: dict[str, float] = {"tokens": tokens, "largest_score_difference": apart}
    for name, runs in (("shared", shared), ("naive", naive)):
        computed, seconds = median(run.computed for run in runs), median(run.seconds for run in runs)
        table.add_row(name, str(len(runs)), f"{computed:.0f}", f"{seconds:.2f}")
        values |= {f"{name}_computed": computed, f"{name}_seconds": round(seconds, 3)}
    ratios = {
        "computed": round(median(ours.computed / theirs.computed for ours, theirs in pairs), 3),
        "seconds": round(median(ours.seconds / theirs.seconds for ours, theirs in pairs), 3),
    }
    table.caption = (
        f"{tokens} prompt tokens in {len(shared[0].scores)} questions; scores differ by {apart:.1g} at most. "
        f"Shared / naive, medians over pairs: computed {ratios['computed']:.2f}, seconds {ratios['seconds']:.2f}"
    )
    return table, values, ratios


if __name__ == "__main__":
    sys.exit(main())
