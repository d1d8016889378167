"""`make bench-sampling`: generate against vLLM alone, two shards against one, and a stage with one slow shard.

- *bare*: `LLM.generate` and generate's own loop on one engine, by turns, with the same prompts, seeds and maximum
  length. generate also records log-probabilities, makes rows of what was sampled and writes them.
- *shards*: the generate stage in processes of its own, each pinned to one core: one shard, then two. Times are those
  from the first shard's first step to the last written part, so starts are in none of them.
- *slow*: two such shards, one of which is stopped for three quarters of the time as soon as it samples. The ideal is
  the time of one shard divided by 1.25, the work that both can do in a second.
"""

import argparse
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.table import Column, Table

from benchmarks.report import print_report, this_machine
from dynalign_contract.config import GenerateParams, Policy, StageConfig
from dynalign_contract.errors import StageError
from dynalign_contract.layout import PROMPTS_FILE, stage_folder
from dynalign_contract.manifest import Manifest, describe_file, reference_to, write_manifest
from dynalign_contract.pod_paths import Variable
from dynalign_contract.records import PROMPT, ROLLOUT, PromptRow, write_rows
from dynalign_contract.result import ArtifactRef, StageResult
from dynalign_contract.settings import EngineSettings, GenerationSettings
from dynalign_contract.stages import Stage
from dynalign_trainer.fetch.bundled import fetch_bundled
from dynalign_trainer.generate.sampling import Stream
from dynalign_trainer.generate.stage import is_complete
from dynalign_trainer.models.engine_plan import plan_engine
from dynalign_trainer.models.engine_start import prepare_environment
from dynalign_trainer.models.vllm_engine import VllmEngine, start_vllm_engine
from dynalign_trainer.prompts.rows import supplied_row
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.shared_parts import SharedParts
from lab.stage_attempts import attempt

NAME: Final = "bench-sampling"
MODEL: Final = "smollm2-135m-instruct"
TEXTS: Final = Path(__file__).parent / "peers/prompts.jsonl"
PROMPTS, CANDIDATES, TOKENS, PAIRS, PART = 32, 8, 48, 3, 2
WAYS: Final = ("one", "two", "slow")
_SLOWNESS: Final = 4
_SLICE_SECONDS: Final = 0.05


@dataclass(frozen=True)
class Site:
    """A run's folder with a model and prompts."""

    root: Path
    inputs: dict[str, ArtifactRef]
    prompts: list[PromptRow]

    def config(self, tokens: int, candidates: int, part: int, shards: int = 1) -> StageConfig:
        """The configuration of generate, with `part` prompts in a part."""
        settings = GenerationSettings(
            candidates=candidates, max_tokens=tokens, shards=shards, prompts_per_part=part, temperature=1.0
        )
        return StageConfig(
            run="bench",
            iteration=0,
            shards=shards,
            engine=EngineSettings(max_length=1024),
            inputs=self.inputs,
            params=GenerateParams(generation=settings),
        )

    def context(self, config: StageConfig) -> StageContext[Any]:
        """One attempt of the only shard, in this process."""
        folder = self.root / config.folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return attempt(config, self.root)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when everything was measured, 1 with a sentence when it could not be."""
    parser = argparse.ArgumentParser(
        prog=NAME, description="Sampling in generate, alone, in shards, with a slow shard."
    )
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--candidates", type=int, default=CANDIDATES, help="of each prompt")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of an answer, at most")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="passes of each way")
    given = parser.parse_args(arguments)
    machine = this_machine()
    if machine.cpus < 2:
        sys.stderr.write(f"{NAME} pins two shards to a core each, and this machine offers one core.\n")
        return 1
    try:
        with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as folder:
            site = prepare(Path(folder), given.prompts)
            pairs = compare_with_bare(site, given)
            seconds: dict[str, list[float]] = {way: [] for way in WAYS}
            for way in WAYS * given.pairs:
                seconds[way].append(sample_in_shards(site, given, way))
    except StageError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    table, values, ratios = summarise(pairs, seconds)
    print_report(NAME, machine, table, values, ratios)
    return 0


def prepare(root: Path, count: int) -> Site:
    """Write the model and prompts of mixed lengths. Raises StageError when the model is not installed."""
    model = root / stage_folder(Stage.FETCH)
    model.mkdir()
    fetch_bundled(MODEL, model, lambda _done, _total: None)
    texts = itertools.cycle(json.loads(line)["prompt"] for line in TEXTS.read_text().splitlines())
    rows = [
        supplied_row(f"p{index:03d}", [{"role": "user", "content": " ".join(itertools.islice(texts, 1 + index % 4))}])
        for index in range(count)
    ]
    folder = root / stage_folder(Stage.PROMPTS, 0)
    folder.mkdir(parents=True)
    write_rows(folder / PROMPTS_FILE, rows, PROMPT)
    files = sorted(path.name for path in model.iterdir())
    return Site(
        root,
        {
            "model": _artifact(root, Stage.FETCH, None, dict.fromkeys(files, 0)),
            "prompts": _artifact(root, Stage.PROMPTS, 0, {PROMPTS_FILE: count}),
        },
        rows,
    )


def _artifact(root: Path, stage: Stage, iteration: int | None, files: dict[str, int]) -> ArtifactRef:
    path = stage_folder(stage, iteration)
    described = tuple(describe_file(root / path, name, rows) for name, rows in files.items())
    manifest = Manifest(stage=stage, iteration=iteration, config_digest="sha256:" + "0" * 64, files=described)
    write_manifest(root / path, manifest)
    return reference_to(path, manifest)


@dataclass
class Pairs:
    """Passes over the same prompts by vLLM alone and by generate."""

    bare: list[float] = field(default_factory=list)
    generate: list[float] = field(default_factory=list)
    tokens: tuple[int, int] = (0, 0)
    """Tokens that each of them has written in a pass."""


def compare_with_bare(site: Site, given: argparse.Namespace) -> Pairs:
    """Both ways by turns; the first pass of each, in which kernels and memory warm up, is not kept."""
    context = site.context(site.config(given.tokens, given.candidates, given.prompts))
    prepare_environment()
    engine = start_vllm_engine(plan_engine(context, [Policy()]), context.telemetry)
    pairs = Pairs()
    for number in range(given.pairs + 1):
        ways: list[Callable[[], tuple[float, int]]] = [
            lambda: sample_bare(engine, site, context, given),
            lambda: sample_as_stage(engine, site, given),
        ]
        order = ways if number % 2 == 0 else ways[::-1]
        measured = {way: way() for way in order}
        (bare, theirs), (ours, mine) = measured[ways[0]], measured[ways[1]]
        _say(f"vLLM alone {bare:.1f} s, generate {ours:.1f} s")
        if number:
            pairs.bare.append(bare)
            pairs.generate.append(ours)
            pairs.tokens = theirs, mine
    return pairs


def sample_bare(
    engine: VllmEngine, site: Site, context: StageContext[Any], given: argparse.Namespace
) -> tuple[float, int]:
    """Seconds and tokens of `LLM.generate`."""
    from vllm import SamplingParams  # noqa: PLC0415 - it reads the environment that `prepare_environment` sets

    prompts = [{"prompt_token_ids": engine.chat.encode(row["messages"])} for row in site.prompts]
    seeds = [context.seed(row["prompt_id"]) for row in site.prompts]
    params = [
        SamplingParams(temperature=1.0, max_tokens=given.tokens, seed=seed + k)
        for seed in seeds
        for k in range(given.candidates)
    ]
    engine.forget_prefixes()
    started = time.monotonic()
    outputs = engine._llm.generate(  # noqa: SLF001 - two engines would not be the same
        [prompt for prompt in prompts for _ in range(given.candidates)], params, use_tqdm=False
    )
    return time.monotonic() - started, sum(len(output.outputs[0].token_ids) for output in outputs)


def sample_as_stage(engine: VllmEngine, site: Site, given: argparse.Namespace) -> tuple[float, int]:
    """Seconds and tokens of generate's loop, from its first prompt to the written part."""
    context = site.context(site.config(given.tokens, given.candidates, given.prompts))
    started = time.monotonic()
    shared = SharedParts[Any, Any](
        context,
        site.prompts,
        size=given.prompts,
        table=ROLLOUT,
        is_complete=lambda part, rows: is_complete(part, rows, given.candidates),
    )
    with shared, engine.sampler(Policy()) as sampler:
        stream = Stream(context, engine, sampler, shared)
        task = shared.take()
        while task is not None:
            stream.add(task)
            task = stream.run()
    return time.monotonic() - started, stream.tokens


def sample_in_shards(site: Site, given: argparse.Namespace, way: str) -> float:
    """Seconds from the first step of the first shard to the last part, one, two or two shards with a slow one."""
    shards = 1 if way == "one" else 2
    config = site.config(given.tokens, given.candidates, PART, shards)
    shutil.rmtree(site.root / config.folder, ignore_errors=True)
    path = site.root / "stage.json"
    path.write_text(config.to_json())
    started = time.time()
    processes = [_start(site.root, path, shard) for shard in range(shards)]
    try:
        with slowed(processes[-1], site.root / config.leases) if way == "slow" else _untouched():
            codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.kill()
    for shard, code in enumerate(codes):
        if code:
            raise StageError(f"shard {shard} has ended with code {code}: {(site.root / f'log-{shard}').read_text()}")
    begun = started + min(_start_seconds(site.root / f"result-{shard}") for shard in range(shards))
    parts = [part for shard in range(shards) for part in (site.root / config.shard(shard)).glob("part-*.parquet")]
    seconds = max(part.stat().st_mtime for part in parts) - begun
    _say(f"{way}: {seconds:.1f} s")
    return seconds


def _start(root: Path, config: Path, shard: int) -> "subprocess.Popen[bytes]":
    """Start a shard on a core of its own."""
    core = sorted(os.sched_getaffinity(0))[shard]
    command = [sys.executable, "-m", "dynalign_trainer.main", "--config", str(config), "--root", str(root)]
    with (root / f"log-{shard}").open("w") as log:
        return subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *command, "--result", str(root / f"result-{shard}")],
            env={**os.environ, Variable.COMPLETION_INDEX: str(shard), "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )


def _start_seconds(result: Path) -> float:
    metrics = {metric.name: metric.value for metric in StageResult.decode(result.read_bytes()).metrics}
    return metrics.get("start_seconds") or 0.0


@contextmanager
def _untouched() -> Iterator[None]:
    yield


@contextmanager
def slowed(process: "subprocess.Popen[bytes]", leases: Path) -> Iterator[None]:
    """Stop a shard for three quarters of the time from its first step on; it renews its leases between steps."""
    ended = threading.Event()

    def is_sampling() -> bool:
        try:
            return any(path.read_text().split() > ["1", "1"] for path in leases.glob("001-*.lease"))
        except FileNotFoundError:
            return False

    def run() -> None:
        while not is_sampling() and not ended.wait(0.05):
            pass
        while process.poll() is None and not ended.is_set():
            process.send_signal(signal.SIGSTOP)
            ended.wait((_SLOWNESS - 1) * _SLICE_SECONDS)
            process.send_signal(signal.SIGCONT)
            ended.wait(_SLICE_SECONDS)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def summarise(pairs: Pairs, seconds: dict[str, list[float]]) -> tuple[Table, dict[str, float], dict[str, float]]:
    """The table, and values and ratios of the JSON line; ratios are medians."""
    middle = {way: median(values) for way, values in seconds.items()}
    ideal = middle["one"] / (1 + 1 / _SLOWNESS)
    rates = [(b / pairs.tokens[0]) / (g / pairs.tokens[1]) for b, g in zip(pairs.bare, pairs.generate, strict=True)]
    ratios = {"bare": median(rates), "two": middle["one"] / middle["two"], "slow": middle["slow"] / ideal}
    table = Table("what", Column("seconds", justify="right"), Column("ratio", justify="right"))
    table.add_row("vLLM alone", f"{median(pairs.bare):.1f}", "")
    table.add_row("generate, share of its tokens a second", f"{median(pairs.generate):.1f}", f"{ratios['bare']:.3f}")
    table.add_row("one shard on one core", f"{middle['one']:.1f}", "")
    table.add_row("two shards on a core each, times as fast", f"{middle['two']:.1f}", f"{ratios['two']:.2f}")
    table.add_row("two shards, one slow, of the ideal time", f"{middle['slow']:.1f}", f"{ratios['slow']:.2f}")
    values = {f"{way}_seconds": round(value, 2) for way, value in middle.items()}
    values |= {"bare_seconds": round(median(pairs.bare), 2), "generate_seconds": round(median(pairs.generate), 2)}
    values |= {"bare_tokens": pairs.tokens[0], "generate_tokens": pairs.tokens[1], "ideal_seconds": round(ideal, 2)}
    return table, values, {name: round(ratio, 3) for name, ratio in ratios.items()}


def _say(text: str) -> None:
    sys.stderr.write(f"{NAME}: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
