"""Every contender of bench-peer on a tiny random model: processes, and that they do the same work."""

import json
from pathlib import Path

import pytest

from benchmarks import peer
from benchmarks.peers.measurement import Contender, describe_differences
from benchmarks.peers.ours import Size, build_run, measure_ours, read_plan
from benchmarks.peers.plan import GENERATE, JUDGE, TRAIN
from benchmarks.peers.theirs import measure_theirs
from lab.tiny_qwen3 import write_tiny_qwen3

pytestmark = pytest.mark.slow

WINDOW = 4096


def write_model(folder: Path) -> Path:
    """A tiny model whose window holds the judge's questions, a token a byte."""
    write_tiny_qwen3(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": WINDOW}))
    return folder


def test_all_contenders_sample_ask_and_train_the_same_amount(tmp_path: Path) -> None:
    size = Size(prompts=2, candidates=2, tokens=8)
    run = build_run(size, write_model(tmp_path / "model"), peer.write_prompts(tmp_path, size))
    run["spec"]["engine"]["maxLength"] = WINDOW
    run["spec"]["prompts"]["maxTokens"] = 1024  # a token a byte
    measured = [measure_ours(run, tmp_path / "dynalign", 0)]
    plan = read_plan(run, tmp_path / "dynalign")
    for contender in (Contender.TRL, Contender.SCRIPTS):
        measured.append(measure_theirs(contender, plan, tmp_path / contender, 0))
        assert (tmp_path / contender / "policy/adapter_model.safetensors").is_file()
    assert [one for one in describe_differences(plan, measured) if "sampled tokens" not in one] == []
    for one in measured:
        assert set(one.report.seconds) == {GENERATE, JUDGE, TRAIN}
        assert 0 < one.wall <= one.command
        assert one.cpu > 0
