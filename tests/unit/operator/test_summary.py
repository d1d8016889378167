"""The end of a run in few words: a table that explains itself, whether it worked, and answers before and after."""

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dynalign_contract.layout import ANSWERS_FILE, RunLayout
from dynalign_contract.plain_text import has_hidden
from dynalign_contract.records import ANSWER, AnswerRow, write_rows
from dynalign_contract.result import PublishedPlace
from dynalign_contract.stages import Stage
from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.cli.before_after import CUT, before_after, clip, find_changes, read_changes
from dynalign_operator.cli.ending import Invocation, print_ending
from dynalign_operator.cli.summary import judge_warning, legend, summary_table, verdict
from dynalign_operator.cli.terminal import open_console
from dynalign_operator.planning.observed import JobObservation
from support.builders import a_run
from support.simulation import Simulation, succeed

HOSTILE = "\x1b]52;c;ZXZpbA==\x07[/red]\x1b[2J\u202egnp\r\nnext :smile:"
SAFE = "[/red]gnp next :smile:"


def evaluated(judged: dict[str, float] | None = None, /, **numbers: float) -> AlignmentRun:
    """A finished run of two iterations whose evaluations found these numbers."""

    def fate(job: JobObservation) -> JobObservation:
        return succeed(job, **{Stage.JUDGE: judged or {}, Stage.EVALUATE: numbers}.get(job.step.stage, {}))

    return Simulation(a_run().with_iterations(2).build()).finish(fate).run


def rate(value: float, low: float, high: float) -> dict[str, float]:
    return {"win_rate": value, "win_rate_low": low, "win_rate_high": high, "prompts": 40.0}


def ability(value: float, low: float, high: float) -> dict[str, float]:
    return {"capability": 0.5, "capability_delta": value, "capability_delta_low": low, "capability_delta_high": high}


def shown(what: Any, width: int = 80) -> list[str]:
    console = Console(width=width, file=StringIO())
    console.print(what)
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_table_says_three_things_of_each_iteration_within_80_columns() -> None:
    delta = {f"held_out_reward_delta{end}": v for end, v in (("", 0.021), ("_low", 0.01), ("_high", 0.033))}
    run = evaluated(**rate(0.73, 0.56, 0.9), **ability(-0.0125, -0.05, 0.025), **delta)
    lines = shown(summary_table(run.status))
    assert re.split(r"\s{2,}", lines[0].strip()) == ["wins against", "held-out reward,", "general ability,"]
    assert re.split(r"\s{2,}| (?=the base)", lines[1].strip()) == [
        "iteration",
        "the base model",
        "change against base",
        "change against base",
    ]
    assert lines[-1].split() == [
        "1",
        "73%",
        "(56-90%)",
        "+0.021",
        "(+0.010",
        "to",
        "+0.033)",
        "-0.013",
        "(-0.050",
        "to",
        "+0.025)",
    ]
    assert max(map(len, lines)) <= 80
    assert len(legend(run.status)) <= 80


def test_what_was_not_measured_is_a_dash() -> None:
    assert shown(summary_table(evaluated().status))[2].split()[-2:] == ["-", "-"]


@pytest.mark.parametrize(
    ("numbers", "begin", "end"),
    [
        (rate(0.73, 0.56, 0.9), "Yes: on 40 held-out prompts the answers of iteration", "general ability was not measured."),
        (rate(0.6, 0.45, 0.75), "Not shown: on", "which may be chance, and general ability was not measured."),
        (rate(0.3, 0.2, 0.45), "No: on", "general ability was not measured."),
        (rate(0.7, 0.55, 0.8) | ability(0.01, -0.02, 0.04), "Yes", "no change of general ability is shown: +0.010 (-0.020 to +0.040)."),
        (rate(0.7, 0.55, 0.8) | ability(-0.05, -0.08, -0.01), "Yes", "general ability fell: -0.050 (-0.080 to -0.010)."),
        (rate(0.7, 0.55, 0.8) | ability(0.05, 0.01, 0.08), "Yes", "general ability rose: +0.050 (+0.010 to +0.080)."),
        (rate(0.7, 0.55, 0.8) | {"regressed": 1.0}, "No", "general ability was not measured."),
    ],
)  # fmt: skip
def test_whether_it_worked_in_a_sentence(numbers: dict[str, float], begin: str, end: str) -> None:
    sentence = verdict(evaluated(**numbers))
    assert sentence.startswith(f"Did it work? {begin}")
    assert sentence.endswith(end)
    assert "95% interval" in sentence


def test_without_an_evaluation_nothing_is_known() -> None:
    assert verdict(a_run().build()) == "Did it work? Not known: no iteration has been evaluated."


def test_an_unfit_judge_is_named() -> None:
    assert judge_warning(evaluated({"unfit": 0.0}).status) is None
    warning = judge_warning(evaluated({"unfit": 1.0}).status)
    assert warning is not None
    assert "in iteration 0, 1:" in warning


def answers(policy: str, *texts: str, question: str = "Why?", finish: str = "stop") -> list[AnswerRow]:
    return [
        {
            "prompt_id": f"p{i}",
            "policy": policy,
            "messages": [{"role": "system", "content": "no"}, {"role": "user", "content": question}],
            "completion_ids": [1],
            "finish_reason": finish,
            "text": text,
        }
        for i, text in enumerate(texts)
    ]


def test_the_first_three_questions_whose_answers_changed_are_shown_in_order() -> None:
    rows = [*answers("base", "a", "b", "c", "d", "e"), *answers("iteration-001", "a", "B", "C", "D", "E")]
    changes = find_changes([*rows, *answers("iteration-000", "x", "x", "x", "x", "x")], 1)
    assert (changes.questions, len(changes.changed)) == (5, 4)
    lines = shown(before_after(changes))
    assert lines[0] == "Before and after: 4 of 5 held-out answers changed; the first 3:"
    assert [line.split() for line in lines if line.startswith("after")] == [["after", letter] for letter in "BCD"]


def test_a_run_that_changed_nothing_says_so() -> None:
    changes = find_changes([*answers("base", "a"), *answers("iteration-000", "a")], 0)
    assert shown(before_after(changes)) == ["None of the 1 held-out answers changed in iteration 0."]


@pytest.mark.parametrize("width", [40, 80, 160])
def test_what_models_wrote_is_one_harmless_paragraph_of_bounded_length(width: int) -> None:
    rows = [
        *answers("base", HOSTILE, question=HOSTILE),
        *answers("iteration-000", "word " * 20_000, question=HOSTILE, finish="length"),
    ]
    console = open_console()
    console.file, console.width = StringIO(), width
    console.print(before_after(find_changes(rows, 0)))
    text = console.file.getvalue()
    assert not has_hidden(text)
    flat = " ".join(text.split())
    assert f"question {SAFE} before {SAFE} after word word" in flat
    assert flat.endswith(CUT.strip())
    assert max(map(len, text.splitlines())) <= width
    assert len(text) < 2_000


def test_texts_are_cut_between_words_with_a_mark() -> None:
    assert clip("one two three", 100) == "one two three"
    assert clip("one two three", 100, is_cut=True) == f"one two three{CUT}"
    assert clip("one two three", 9) == f"one two{CUT}"
    assert clip("x" * 50, 9) == f"{'x' * 9}{CUT}"
    assert clip(" \n ", 9) == "(empty)"


def test_answers_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    assert read_changes(tmp_path, 0) is None
    folder = RunLayout(tmp_path).stage(Stage.EVALUATE, 0)
    folder.mkdir(parents=True)
    (folder / ANSWERS_FILE).write_text("no Parquet")
    assert read_changes(tmp_path, 0) is None


def test_the_last_lines_of_a_run_say_what_changed_and_where_to_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = evaluated(**rate(0.73, 0.56, 0.9))
    run = run.with_status(run.status.evolve(published=(PublishedPlace(uri="s3://models/mine"),)))
    index = run.status.best.iteration if run.status.best else None
    assert index is not None
    folder = RunLayout(tmp_path).stage(Stage.EVALUATE, index)
    folder.mkdir(parents=True)
    write_rows(
        folder / ANSWERS_FILE, [*answers("base", "ancient"), *answers(f"iteration-{index:03d}", "modern")], ANSWER
    )
    console = open_console()
    print_ending(console, run, Invocation(Path("my.yaml"), tmp_path, ["spec.seed=3"]), wide=False)
    text = capsys.readouterr().out
    order = [
        "wins against",
        "1 of 1 held-out answers changed",
        "ancient",
        "modern",
        "Did it work? Yes",
        "Hugging",
        "s3://models/mine",
        "go on ",
    ]
    assert [text.index(word) for word in order] == sorted(text.index(word) for word in order)
    assert str(RunLayout(tmp_path).export) in "".join(text.split())
    assert f"dynalignreport{tmp_path}" in "".join(text.split())
    assert f"dynalignrunmy.yaml--setspec.seed=3--workdir{tmp_path}" in "".join(text.split())
    assert "canary" not in text
    RunLayout(tmp_path).report.write_text("<html>")
    print_ending(console, run, Invocation(Path("my.yaml"), tmp_path, ["spec.seed=3"]), wide=True)
    text = capsys.readouterr().out
    assert f"{RunLayout(tmp_path).report}(openit" in "".join(text.split())
    assert "canary" in text
