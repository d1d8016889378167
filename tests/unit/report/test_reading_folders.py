"""What a report finds in a run's folder: samples joined from three stages, held-out answers, numbers of manifests."""

from pathlib import Path

import pytest

from dynalign_contract.layout import ANSWERS_FILE, RunLayout, part_name, shard_folder
from dynalign_contract.manifest import read_listed, write_manifest
from dynalign_contract.metrics import EvaluateMetrics, GenerateMetrics, JudgeMetrics
from dynalign_contract.stages import Stage
from dynalign_report.facts import RunFacts, StageFacts
from dynalign_report.folder import read_reported_run
from dynalign_report.held_out import changed_share
from support.report_runs import a_work_folder

FACTS = RunFacts(name="r", phase="Succeeded")


def test_candidates_are_joined_with_rewards_and_advantages(tmp_path: Path) -> None:
    made = a_work_folder().thinking("hm")
    run = read_reported_run(made.write(tmp_path), FACTS)
    assert list(run.groups) == [0, 1]
    for iteration, groups in run.groups.items():
        assert [group.prompt_id for group in groups] == [made.prompt_id(iteration, n) for n in range(made.prompts)]
        for number, group in enumerate(groups):
            assert group.messages == (("user", f"How can I {number}?"),)
            for index, candidate in enumerate(group.candidates):
                reward = made.reward(iteration, number, index)
                assert candidate.number == index
                assert candidate.reward == pytest.approx(reward, abs=1e-4)
                assert candidate.advantage == pytest.approx(reward - 0.5, abs=1e-3)
                assert candidate.aspects["knowledge"] == pytest.approx(9 * reward, abs=1e-3)
                assert candidate.thought == "hm"
                assert candidate.truncated is (index > 0)


def test_held_out_answers_stand_beside_those_of_the_base_model(tmp_path: Path) -> None:
    run = read_reported_run(a_work_folder().write(tmp_path), FACTS)
    assert [prompt.prompt_id for prompt in run.held_out] == ["heldout-00000", "heldout-00001", "heldout-00002"]
    first = run.held_out[1]
    assert first.before == "Answer of base as ever"
    assert [answer.iteration for answer in first.after] == [0, 1]
    assert first.after[1].text == "Answer of iteration-001 anew"
    assert first.after[1].comparisons[0].outcome == 0.5
    assert 0 < first.after[1].change < 1


def test_numbers_come_from_manifests_where_the_status_has_dropped_them(tmp_path: Path) -> None:
    run = read_reported_run(a_work_folder().write(tmp_path), FACTS)
    assert run.numbers[1][JudgeMetrics.reward] == pytest.approx(0.45)
    assert run.numbers[1][EvaluateMetrics.win_rate.value] == pytest.approx(0.6)
    assert {entry.seconds for entry in run.stages} == {61.0}


def test_the_status_decides_where_it_knows_a_stage(tmp_path: Path) -> None:
    again = StageFacts(stage=Stage.TRAIN, iteration=1, phase="Running", attempt=2, message="was killed")
    run = read_reported_run(a_work_folder().write(tmp_path), RunFacts(name="r", phase="Running", stages=(again,)))
    assert [entry for entry in run.stages if (entry.stage, entry.iteration) == (Stage.TRAIN, 1)] == [again]


def test_shards_are_read_as_one_artifact(tmp_path: Path) -> None:
    made = a_work_folder()
    folder = RunLayout(made.write(tmp_path)).stage(Stage.GENERATE, 0)
    for index in range(2):
        shard = Path(shard_folder(str(folder), index, 2))
        shard.mkdir()
        (shard / part_name(0)).write_bytes((folder / part_name(0)).read_bytes())
        write_manifest(shard, read_listed(folder))
    (folder / "manifest.json").unlink()
    run = read_reported_run(tmp_path, FACTS)
    (generate,) = [entry for entry in run.stages if (entry.stage, entry.iteration) == (Stage.GENERATE, 0)]
    assert run.numbers[0][GenerateMetrics.mean_length] == 10
    assert generate.bytes == 2 * (folder / "shard-000" / part_name(0)).stat().st_size
    assert len(run.groups[0][0].candidates) == 2 * made.candidates


@pytest.mark.parametrize("last", [Stage.GENERATE, Stage.JUDGE, Stage.TRAIN])
def test_what_a_running_iteration_has_not_made_yet_is_absent(tmp_path: Path, last: Stage) -> None:
    run = read_reported_run(a_work_folder().running("trains", after=last).write(tmp_path), FACTS)
    candidate = run.groups[1][0].candidates[1]
    assert (candidate.reward is None) is (last is Stage.GENERATE)
    assert (candidate.advantage is None) is (last is not Stage.TRAIN)
    assert {answer.iteration for prompt in run.held_out for answer in prompt.after} == {0}
    assert run.problems == ()


def test_an_empty_folder_is_a_run_that_has_done_nothing(tmp_path: Path) -> None:
    run = read_reported_run(tmp_path, RunFacts(name="r", phase="Pending"))
    assert (run.stages, run.groups, run.held_out, run.problems) == ((), {}, (), ())


def test_damaged_artifacts_are_named_and_the_rest_is_reported(tmp_path: Path) -> None:
    root = a_work_folder().write(tmp_path)
    answers = RunLayout(root).stage(Stage.EVALUATE, 1) / ANSWERS_FILE
    answers.write_bytes(b"no parquet")
    (RunLayout(root).stage(Stage.JUDGE, 0) / "manifest.json").write_text("{")
    run = read_reported_run(root, FACTS)
    assert any(str(answers) in problem for problem in run.problems)
    assert any("manifest.json is not a manifest" in problem for problem in run.problems)
    assert list(run.groups) == [1]
    assert run.numbers[0][EvaluateMetrics.win_rate.value] == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [("a b", "a b", 0), ("a b", "c d", 1), ("a b", "a c", 0.5), ("", "", 0), ("a", "", 1), (" ", "  ", 1)],
)
def test_share_of_changed_words(before: str, after: str, share: float) -> None:
    assert changed_share(before, after) == share
