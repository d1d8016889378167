"""Pods of a rollout write its prompts together: whatever happens to one of them, every byte is that of one pod alone."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Self, TypeVar

import pytest

from dynalign_contract.agents import AgentsSettings, AuthorSettings, ReviserSettings
from dynalign_contract.config import GenerateParams, PromptsParams, RolloutParams, RolloutPart, StageConfig
from dynalign_contract.manifest import read_listed
from dynalign_contract.objective import CriticTemplate, ReviserTemplate
from dynalign_contract.result import Outcome, StageResult
from dynalign_contract.settings import DedupSettings, EngineSettings, GenerationSettings, PromptSettings
from dynalign_contract.stages import Stage
from lab.testbed import load_testbed
from support.judging_data import rule_objective
from support.stage_processes import start_shard
from support.training_data import write_artifact

pytestmark = pytest.mark.slow

PLACE = "iterations/000/prompts"
T = TypeVar("T")

OBJECTIVE = rule_objective().model_copy(
    update={
        "critic": CriticTemplate(
            message="Question: $open $prompt $close", criteria={"a": "Rate it.", "b": "Is it new?"}
        ),
        "reviser": ReviserTemplate(message="Mend: $prompt"),
    }
)
PROMPTS = PromptSettings(
    per_iteration=200,
    held_out=2,
    min_characters=8,
    min_yield=0.1,
    agents=AgentsSettings(
        author=AuthorSettings(max_tokens=24, drafts_per_prompt=1.5),
        reviser=ReviserSettings(revise_from=0, revise_below=9, max_tokens=24),
    ),
    dedup=DedupSettings(threshold=1.0),
)


def place(root: Path, shards: int) -> StageConfig:
    """A run's folder with a rollout of prompts and generate that is to begin."""
    shutil.copytree(load_testbed().model, root / "model")
    model = {"model": write_artifact(root, "model", Stage.FETCH)}
    generation = GenerationSettings(candidates=2, max_tokens=8, prompts_per_part=32, shards=shards)
    parts = (
        RolloutPart(params=PromptsParams(objective=OBJECTIVE, prompts=PROMPTS, reserve_tokens=48), inputs=model),
        RolloutPart(params=GenerateParams(generation=generation), inputs=model, made={"prompts": Stage.PROMPTS}),
    )
    config = StageConfig(
        run="test",
        iteration=0,
        shards=shards,
        engine=EngineSettings(max_length=512),
        params=RolloutParams(parts=parts),
    )
    (root / "stage.json").write_text(config.to_json())
    return config


def end(root: Path, process: subprocess.Popen[bytes], index: int) -> StageResult:
    code = process.wait(600)
    result = StageResult.decode((root / f"result-{index}").read_bytes())
    assert code == 0, result.error
    return result


def written(root: Path) -> dict[str, bytes]:
    """The files of the artifact, which its manifest lists."""
    folder = root / PLACE
    return {file.name: (folder / file.name).read_bytes() for file in read_listed(folder).files}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("alone")
    place(root, 1)
    assert end(root, start_shard(root, 0), 0).outcome is Outcome.SUCCEEDED
    assert not list(root.rglob("*-leases"))
    return root


def figures(root: Path) -> dict[str, float | None]:
    metrics = read_listed(root / PLACE).metrics
    return {metric.name: metric.value for metric in metrics if not metric.name.endswith("_seconds")}


class Pods:
    """The pods of a rollout as processes on one folder."""

    def __init__(self, root: Path, shards: int) -> None:
        self.root, self.config = root, place(root, shards)
        self.processes = {index: start_shard(root, index) for index in range(shards)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.kill()

    def hold_the_first_batch(self) -> None:
        """Stop the pod that writes the prompts until others have begun with what it asks."""
        self.await_any(lambda: list(self.root.glob(f"{PLACE}-leases/*/*.batch.json")))
        self.processes[0].send_signal(signal.SIGSTOP)

    def await_taker(self, *others: int) -> int:
        """One of these pods, once it has taken a part of the prompts."""
        holders = self.await_any(lambda: {index for index in others if index in self.holders()})
        return min(holders)

    def holders(self) -> set[int]:
        """Pods that have taken parts of the prompts."""
        found = self.root.glob(f"{PLACE}-leases/*/*-*.lease")
        return {int(text.split()[0]) for path in found if (text := path.read_text())}

    def await_any(self, look: Callable[[], Collection[T]]) -> Collection[T]:
        while not (found := look()):
            assert not [index for index, process in self.processes.items() if process.poll() not in (None, 0, -9)]
            time.sleep(0.01)  # between two looks at the folder
        return found

    def go_on(self, index: int) -> None:
        self.processes[index].send_signal(signal.SIGCONT)

    def end(self) -> None:
        for index, process in self.processes.items():
            assert end(self.root, process, index).outcome is Outcome.SUCCEEDED
        assert not list(self.root.rglob("*-leases"))


def test_two_pods_write_what_one_writes(alone: Path, tmp_path: Path) -> None:
    with Pods(tmp_path, 2) as pods:
        pods.hold_the_first_batch()
        pods.await_taker(1)
        pods.go_on(0)
        pods.end()
    assert written(tmp_path) == written(alone)
    assert figures(tmp_path) == figures(alone), "requests and tokens are counted wherever they are spent"


def test_pods_that_stand_still_or_are_gone_hold_nobody_up(alone: Path, tmp_path: Path) -> None:
    """Each of them has begun with a part."""
    with Pods(tmp_path, 3) as pods:
        pods.hold_the_first_batch()
        still = pods.await_taker(1, 2)
        pods.processes[still].send_signal(signal.SIGSTOP)
        gone = pods.await_taker(3 - still)
        pods.processes[gone].kill()
        pods.go_on(0)
        pods.await_any(lambda: list(tmp_path.glob(f"{PLACE}/manifest.json")))
        assert written(tmp_path) == written(alone)
        pods.go_on(still)
        pods.processes[gone] = start_shard(tmp_path, gone)
        pods.end()
    assert written(tmp_path) == written(alone)
    assert figures(tmp_path) == figures(alone)
