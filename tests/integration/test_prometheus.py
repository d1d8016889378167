"""A real Prometheus scrapes the real operator while a run goes from apply to Completed, and after it is deleted."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import start_http_server

from dynalign_contract.pod_paths import METRICS_PORT
from dynalign_contract.stages import ITERATION_STAGES, Stage
from dynalign_operator.manifests.labels import read_job_labels
from dynalign_trainer.runtime.telemetry import Telemetry
from lab.api_server import ApiServer, start_api_server
from lab.processes import free_port
from support.chart import CHART
from support.player import RAN, Player, is_completed, report, run_object, scenario, start_operator
from support.prometheus import HOUR, Prometheus, documented_series, start_prometheus

pytestmark = pytest.mark.cluster

STAGE_ADDRESS = "127.64.0.2"
"""Of the pod that runs for a while: a loopback address of its own, because the port is fixed."""
RATE = 40.0
"""Tokens a second that it tells."""
RUN = run_object(model={"uri": "bundled://smollm2-135m-instruct"}, iterations=2)
NUMBERS: dict[Stage, dict[str, float | None]] = {
    Stage.FETCH: {"parameters": 134515008.0, "bytes": 269060552.0, "start_seconds": 1.25},
    Stage.PROMPTS: {
        "prompts": 4.0,
        "critic_mean": 5.5,
        "drafts": 8.0,
        "duplicate_share": 0.125,
        "near_duplicate_share": 0.25,
        "tokens": 640.0,
        "start_seconds": 9.5,
    },
    Stage.GENERATE: {"candidates": 16.0, "truncated_share": 0.5, "tokens_per_second": 30.0, "start_seconds": 9.5},
    Stage.JUDGE: {
        "reward": 0.55,
        "aspect_reward/knowledge": 0.5,
        "aspect_reward/benevolence": 0.625,
        "aspect_reward/power": 0.5,
        "aspect_reward/vitality": 0.75,
        "verifier_reward/valid-json": 0.25,
        "judge_reward/outside": 0.5,
        "judge_left_out/outside": 0.0,
        "judge_canary_auc/outside": 0.75,
        "judge_agreement/outside": 0.25,
        "disagreement": 0.0625,
        "reward_std": 0.1,
        "group_std": 0.05,
        "zero_variance_share": 0.25,
        "canary_margin": 0.3,
        "canary_auc": 0.875,
        "canary_reward": 0.25,
        "injection_auc": 0.75,
        "injection_margin": 0.2,
        "injection_reward": 0.35,
        "unfit": 0.0,
        "judge_tau": None,
        "tokens_per_second": 300.0,
        "start_seconds": 9.5,
    },
    Stage.TRAIN: {
        "loss": 0.1,
        "kl": 0.002,
        "ratio_mean": 1.0,
        "mfu": 0.4,
        "tokens_per_second": 90.0,
        "start_seconds": 12.5,
    },
    Stage.EVALUATE: {
        "win_rate": 0.6,
        "win_rate_low": 0.5,
        "win_rate_high": 0.7,
        "win_rate_lc": 0.55,
        "win_rate_previous": 0.6,
        "rating": 70.0,
        "capability": 0.5,
        "capability_delta": -0.01,
        "capability_delta_low": -0.03,
        "capability_delta_high": 0.01,
        "regressed": 0.0,
        "held_out_reward": 0.55,
        "held_out_reward_delta": 0.01,
        "held_out_reward_delta_low": 0.0,
        "held_out_reward_delta_high": 0.02,
    },
    Stage.EXPORT: {"parameters": 134515008.0, "relative_change": 0.001, "rounding_error": 0.02},
}
"""What real stages report of themselves, or a part of it."""
USEFUL: dict[Stage, dict[str, float | None]] = {
    stage: {"useful_seconds": 24.0, "start_seconds": NUMBERS[stage].get("start_seconds", 9.5)}
    for stage in ITERATION_STAGES
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with start_api_server(tmp_path_factory.mktemp("api-server") / "s") as started:
        yield started


@contextmanager
def a_stage_that_runs() -> Iterator[None]:
    """Serve what a running stage serves, from the trainer's own registry."""
    telemetry = Telemetry()
    telemetry.begin()
    telemetry.progress(3, 12)
    telemetry.rate(RATE)
    http, thread = start_http_server(METRICS_PORT, STAGE_ADDRESS, telemetry.registry)
    try:
        yield
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def shown_expressions() -> Iterator[str]:
    for panel in json.loads((CHART / "files" / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", "1m")
            yield re.sub(r"\$(namespace|run)\b", ".*", expression)


def runs_for_a_while(pod: dict[str, Any]) -> tuple[int, str] | str:
    labels = read_job_labels(pod["metadata"]["labels"])
    assert labels is not None
    return STAGE_ADDRESS if (labels.stage, labels.iteration) == (Stage.GENERATE, 1) else ends_well(pod)


def ends_well(pod: dict[str, Any]) -> tuple[int, str]:
    return report(pod, {stage: {**numbers, **USEFUL.get(stage, {})} for stage, numbers in NUMBERS.items()})


def value(prometheus: Prometheus, expression: str) -> float:
    (sample,) = prometheus.await_samples(expression)
    return sample.value


def test_every_metric_answers_and_a_deleted_run_leaves_none(server: ApiServer, tmp_path: Path) -> None:
    port = free_port()
    series, expressions = list(documented_series()), list(shown_expressions())
    assert len(series) > 25
    assert len(expressions) > 25

    async def story(player: Player) -> None:
        await player.create(RUN)
        await player.until(lambda s: (s.get("stage"), s.get("iteration")) == ("generate", 1), "the second iteration")
        with a_stage_that_runs():
            await player.play()
            # the operator reads it every ten seconds
            prometheus.await_samples(f'dynalign_run_tokens_per_second{{run="r",stage="generate"}} == {RATE}')
            done = 1 + 5 + 1 + 3 / 12  # fetch, an iteration, the prompts of the next, a quarter of its candidates
            assert value(prometheus, 'dynalign_run_progress_ratio{run="r"}') == pytest.approx(done / 12)
        player.fate = ends_well
        await player.until(is_completed, "completion")
        prometheus.await_samples('dynalign_run_phase{namespace="default",run="r",phase="Succeeded"} == 1')

        assert value(prometheus, "dynalign_run_progress_ratio") == 1.0
        assert value(prometheus, 'dynalign_run_reward_aspect{aspect="vitality"}') == 0.75
        assert value(prometheus, "dynalign_run_win_rate_low") == 0.5
        assert value(prometheus, 'dynalign_run_tokens_per_second{stage="train"}') == 90.0
        assert value(prometheus, "dynalign_run_goodput_ratio") == pytest.approx(24 / RAN.total_seconds(), abs=0.02)
        silent = [name for name in series if not prometheus.query(f"last_over_time(({name}){HOUR})")]
        assert silent == [], "documented, but never served"
        dead = [text for text in expressions if not prometheus.query(f"last_over_time(({text}){HOUR})")]
        assert dead == [], "shown on the dashboard, but always empty"
        assert prometheus.query("ALERTS") == []
        assert prometheus.unhealthy_rules() == {}

    with (
        start_operator(server, DYNALIGN_METRICS_PORT=str(port), DYNALIGN_PROGRESS="PodIP"),
        start_prometheus(
            tmp_path, {"dynalign": [f"127.0.0.1:{port}"]}, [CHART / "files" / "alerts.yaml"]
        ) as prometheus,
    ):
        prometheus.await_samples('up{job="dynalign"} == 1')
        scenario(server, story, runs_for_a_while)
        prometheus.await_silence('{__name__=~"dynalign_run_.+"}')
        assert prometheus.query("dynalign_queue_depth")
        assert prometheus.query(f'last_over_time(({{__name__=~"dynalign_run_.+"}}){HOUR})')
