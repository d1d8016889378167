"""The tables that end a run: every iteration, every stage, within the width of a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from dynalign_contract.stages import SIDE_STAGES, Stage
from dynalign_operator.api.status import BestIteration
from dynalign_operator.cli.tables import describe_best, wide_tables
from dynalign_operator.planning.observed import JobObservation
from support.builders import a_run
from support.simulation import Simulation, succeed

STAGES = [stage for stage in Stage if stage not in {*SIDE_STAGES, Stage.ROLLOUT}]
ASPECTS = {
    "aspect_reward/knowledge": 0.7,
    "aspect_reward/benevolence": 0.6,
    "aspect_reward/power": 0.5,
    "aspect_reward/vitality": 0.4,
}


def summary(width: int = 80, judged: Mapping[str, float] = ASPECTS, **evaluated: float) -> list[str]:
    def fate(job: JobObservation) -> JobObservation:
        numbers = {Stage.JUDGE: judged, Stage.EVALUATE: evaluated}.get(job.step.stage, {})
        return succeed(job, **numbers, start_seconds=3.0 + [*STAGES, *SIDE_STAGES].index(job.step.stage))

    status = Simulation(a_run().with_iterations(2).build()).finish(fate).run.status
    console = Console(width=width)
    with console.capture() as capture:
        console.print(wide_tables(status))
    return capture.get().splitlines()


def test_the_best_in_a_sentence() -> None:
    assert describe_best(None) == ""
    assert describe_best(BestIteration(iteration=1, reason="so high")) == "; best is iteration 1 (so high)"
    assert describe_best(BestIteration(reason="all worse")) == "; best is the base model (all worse)"


def test_scores_and_effort_of_each_iteration() -> None:
    lines = summary()
    assert lines[0].split() == ["training", "canary"]
    assert lines[1].split() == [
        "iteration",
        "reward",
        "knowledge",
        "benevolence",
        "power",
        "vitality",
        "AUC",
        "win",
        "rate",
    ]
    assert lines[2].split()[:7] == ["0", "0.500", "0.700", "0.600", "0.500", "0.400", "-"]
    full = summary(canary_auc=0.7, win_rate=0.5, win_rate_low=0.45, win_rate_high=0.55)
    assert max(map(len, full)) <= 80
    assert not any("…" in line for line in [*lines, *full])


def test_the_devices_time_has_a_line_for_each_iteration_and_for_all() -> None:
    lines = [line.split() for line in summary(useful_seconds=0.0)]
    figures = ["reserved", "useful", "starting", "waiting", "wasted", "unknown"]
    head = lines.index(["GPU", "time", *figures, "goodput"])
    assert [line[0] for line in lines[head + 1 :]] == ["0", "1", "all"]
    assert max(map(len, summary())) <= 80


def test_verifiers_have_a_table_of_their_own_where_there_are_any() -> None:
    numbers = {
        "verifier_reward/valid-json": 0.75,
        "verifier_failed_share/valid-json": 0.0,
        "verifier_failed_share/a-name-of-thirty-two-characters-": 1.0,
    }
    lines = [line.split() for line in summary(judged=numbers)]
    head = lines.index(["iteration", "verifier", "mean", "value", "undecided"])
    assert lines[head + 1 : head + 3] == [
        ["0", "valid-json", "0.750", "0.00"],
        ["0", "a-name-of-thirty-two-characters-", "-", "1.00"],
    ]
    assert max(map(len, summary(judged=numbers))) <= 80
    assert not any("verifier" in line for line in summary())


def test_verifiers_of_held_out_answers_are_compared_with_the_base_model() -> None:
    name = "a-name-of-thirty-two-characters-"
    numbers: dict[str, Any] = {
        f"verifier_value/{name}": 0.75,
        f"verifier_delta/{name}": 0.5,
        f"verifier_delta_low/{name}": 0.25,
        f"verifier_delta_high/{name}": 0.625,
        "verifier_delta/without-interval": -0.5,
    }
    lines = summary(**numbers)
    head = next(index for index, line in enumerate(lines) if "held out" in line)
    assert lines[head].split() == ["iteration", "verifier", "held", "out", "change", "against", "base"]
    assert lines[head + 1].split() == ["0", name, "0.750", "+0.500", "(+0.250", "to", "+0.625)"]
    assert lines[head + 2].split() == ["0", "without-interval", "-", "-0.500"]
    assert max(map(len, lines)) <= 80


def test_several_judges_have_a_table_of_their_own_where_there_are_any() -> None:
    numbers: dict[str, Any] = {
        "judge_reward/self": 0.75,
        "judge_failed_share/self": 0.0,
        "judge_left_out/self": 0.0,
        "judge_failed_share/outside": 0.5,
        "judge_left_out/outside": 1.0,
        "judge_canary_auc/outside": 0.625,
        "judge_injection_auc/outside": 0.375,
        "judge_agreement/outside": -0.25,
        "judge_tokens/outside": 12345.0,
        "judge_failed_share/half": 0.0,
        "judge_left_out/half": 0.25,
    }
    lines = [line.split() for line in summary(judged=numbers)]
    head = lines.index(["iteration", "judge", "reward", "failed", "canaries", "attacks", "agrees", "counted", "tokens"])
    assert lines[head + 1 : head + 4] == [
        ["0", "self", "0.750", "0.00", "-", "-", "-", "yes", "-"],
        ["0", "outside", "-", "0.50", "0.62", "0.38", "-0.25", "no", "12,345"],
        ["0", "half", "-", "0.00", "-", "-", "-", "75%", "-"],
    ]
    assert max(map(len, summary(judged=numbers))) <= 80
    assert not any("counted" in line for line in summary())


def test_how_each_iteration_did_in_the_evaluation() -> None:
    numbers: dict[str, Any] = {"win_rate_lc": 0.47, "win_rate_previous": 0.53, "rating": 34.7, "capability": 0.6125}
    change: dict[str, Any] = {
        "capability_delta": -0.0125,
        "capability_delta_low": -0.05,
        "capability_delta_high": 0.025,
    }
    lines = summary(**numbers, **change)
    head = next(index for index, line in enumerate(lines) if "over previous" in line)
    headings = ["iteration", "equal length", "over previous", "rating", "capability", "change against base"]
    assert lines[head].split() == [word for heading in headings for word in heading.split()]
    assert lines[head + 1].split() == ["0", "0.47", "0.53", "35", "0.613", "-0.013", "(-0.050", "to", "+0.025)"]
    assert max(map(len, lines)) <= 80
    unexamined = summary()
    assert unexamined[head + 1].split() == ["0", "-", "-", "-", "-", "-"]


def test_held_out_rewards_stand_beside_the_training_reward() -> None:
    numbers: dict[str, Any] = {
        "held_out_reward": 0.7,
        "held_out_reward_low": 0.65,
        "held_out_reward_high": 0.75,
        "held_out_reward_delta": 0.02,
        "held_out_reward_delta_low": -0.01,
        "held_out_reward_delta_high": 0.05,
    }
    lines = summary(**numbers)
    head = next(index for index, line in enumerate(lines) if "reward held out" in line)
    assert lines[head + 1].split("0 ", 1)[1].split("  ")[-1].strip().endswith("+0.020 (-0.010 to +0.050)")
    assert "0.700 (0.650 to 0.750)" in lines[head + 1]
    assert max(map(len, lines)) <= 80


def test_start_up_of_every_stage() -> None:
    lines = summary()
    first = next(index for index, line in enumerate(lines) if line.startswith("start-up"))
    assert lines[first].split() == [
        "start-up",
        *map(str, STAGES),
    ]
    assert lines[first + 1].split() == ["0", "3", "s", "4", "s", "5", "s", "6", "s", "7", "s", "8", "s"]
    assert lines[first + 2].split() == ["1", "*", "4", "s", "5", "s", "6", "s", "7", "s", "8", "s", "9", "s"]
