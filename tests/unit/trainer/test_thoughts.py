"""Thoughts are part of a completion's tokens and of nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_contract.config import Policy
from dynalign_contract.metrics import EvaluateMetrics, GenerateMetrics
from dynalign_contract.records import ANSWER, ROLLOUT, AnswerRow, RolloutRow, answer_length, read_rows, write_rows
from dynalign_contract.settings import GenerationSettings
from dynalign_trainer.evaluate.answers import answer_metrics, sample_answers
from dynalign_trainer.evaluate.comparing import Pair
from dynalign_trainer.evaluate.harness_model import EngineLM
from dynalign_trainer.generate.stage import explain_unfinished, rollout_metrics
from dynalign_trainer.models.answer_start import QUESTION
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.reasoning import Completed, part_completion
from dynalign_trainer.models.thoughts import Lengths, Written, sample_chats
from support.chat_templates import template_of
from support.template_engines import WritingEngine


def write(
    family: str, text: str, *, answer: int = 1000, thought: int | None = None, ended: bool = True, **chat: Any
) -> Written:
    engine = WritingEngine(template_of(family, **{"thinking": "On", **chat}), text, ended)
    prompt = engine.chat.encode([QUESTION])
    sampling = Sampling(temperature=1.0, max_tokens=answer)
    ((written,),) = sample_chats(
        cast(Engine, engine), [prompt], sampling, thought, policy=Policy(), seeds=[1], watch=None
    )
    return written


HARMONY = "<|channel|>analysis<|message|>weigh it<|end|><|start|>assistant<|channel|>final<|message|>Light."


@pytest.mark.parametrize(
    ("family", "text", "thought", "answer"),
    [
        ("qwen3", "<think>\nweigh it\n</think>\n\nLight.", "weigh it", "Light."),
        ("qwen3", "Light.", "", "Light."),
        ("qwen3", "<think>\nweigh it", "weigh it", ""),
        ("qwen3", "<think>\na\n</think>\n\nWrite </think> after <think>.", "a", "Write </think> after <think>."),
        ("qwen3", "In HTML, <think> is no tag.", "", "In HTML, <think> is no tag."),
        ("qwen3-thinking", "weigh it\n</think>\n\nLight.", "weigh it", "Light."),
        ("deepseek-r1", "weigh it\n</think>\n\nLight.", "weigh it", "Light."),
        ("deepseek-r1", "weigh it, weigh it", "weigh it, weigh it", ""),
        ("deepseek-v3.1", "weigh it</think>Light.", "weigh it", "Light."),
        ("glm-4.5", "\n<think>weigh it</think>\nLight.", "weigh it", "Light."),
        ("smollm3", "<think>\nweigh it\n</think>\nLight.", "weigh it", "Light."),
        ("phi-4-reasoning", "<think>weigh it</think>Light.", "weigh it", "Light."),
        ("gpt-oss", HARMONY, "weigh it", "Light."),
        ("gpt-oss", "<|channel|>final<|message|>Light.", "", "Light."),
        ("gpt-oss", "<|channel|>analysis<|message|>weigh it", "weigh it", ""),
        ("gpt-oss", "<|channel|>analysis<|message|>weigh it<|end|><|start|>assistant", "weigh it", ""),
    ],
)
def test_the_answer_is_what_follows_the_thought(family: str, text: str, thought: str, answer: str) -> None:
    written = write(family, text)
    assert written.thought is not None
    assert (written.thought.text, written.sample.text) == (thought, answer)
    assert len(written.sample.token_ids) == len(written.sample.logprobs) == token_count(text) + 1
    if not answer:
        assert written.thought.tokens == len(written.sample.token_ids)


def token_count(text: str) -> int:
    return len(template_of("qwen3").tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("family", ["qwen3", "gpt-oss", "smollm2"])
def test_without_thoughts_a_completion_is_left_as_it_is(family: str) -> None:
    written = write(family, "<think>a</think>Light.", thinking="Off", thought=5)
    assert written.thought is None
    assert written.sample.text == "<think>a</think>Light."


def test_thought_and_answer_have_lengths_of_their_own() -> None:
    text = "<think>abcdefghij</think>0123456789"
    whole = token_count("<think>abcdefghij</think>")
    fits = write("qwen3", text, thought=whole, answer=11)
    assert (fits.sample.text, fits.sample.finish_reason) == ("0123456789", "stop")
    cut = write("qwen3", text, thought=whole, answer=4)
    assert (cut.sample.text, cut.sample.finish_reason) == ("0123", "length")
    assert len(cut.sample.token_ids) == whole + 4
    lost = write("qwen3", text, thought=whole - 1, answer=1000)
    assert (lost.sample.text, lost.sample.finish_reason) == ("", "length")
    assert lost.thought is not None
    assert lost.thought.tokens == len(lost.sample.token_ids) == whole - 1


@given(
    thought=st.text("abc<>/think", max_size=12),
    answer=st.text("xyz <>/think", max_size=12),
    longest=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    opens=st.booleans(),
)
def test_lengths_hold_whatever_is_written(thought: str, answer: str, longest: tuple[int, int], opens: bool) -> None:
    text = f"<think>{thought}</think>{answer}" if opens else f"{thought}{answer}"
    written = write("qwen3", text, thought=longest[0], answer=longest[1])
    assert written.thought is not None
    assert written.thought.tokens <= longest[0] or not written.thought.text
    assert len(written.sample.token_ids) - written.thought.tokens <= longest[1]
    assert len(written.sample.token_ids) == len(written.sample.logprobs)
    if written.thought.tokens == len(written.sample.token_ids):
        assert written.sample.text == ""


def row(written: Written) -> RolloutRow:
    made = cast(
        RolloutRow,
        {
            "prompt_id": "p",
            "candidate": 0,
            "prompt_ids": [1],
            "completion_ids": list(written.sample.token_ids),
            "logprobs": list(written.sample.logprobs),
            "finish_reason": written.sample.finish_reason,
            "policy": "base",
            "text": written.sample.text,
            "messages": [QUESTION],
        },
    )
    if written.thought is not None:
        made |= {"thought": written.thought.text, "thought_tokens": written.thought.tokens}
    return made


def test_lengths_are_those_of_answers_and_unfinished_thoughts_are_counted() -> None:
    done, lost = write("qwen3", "<think>aaaa</think>xyz"), write("qwen3", "<think>aaaa")
    metrics = rollout_metrics([row(done), row(lost)])
    assert metrics[GenerateMetrics.mean_length] == 2.0  # three letters and the end of one answer, nothing of the other
    assert metrics[GenerateMetrics.unfinished_thought_share] == 0.5
    assert metrics[GenerateMetrics.empty_share] == 0.5
    assert (
        metrics[GenerateMetrics.mean_thought_length]
        == (token_count("<think>aaaa</think>") + token_count("<think>aaaa") + 1) / 2
    )


def answer(written: Written) -> AnswerRow:
    return cast(AnswerRow, row(written))  # with columns of its own, which the metrics do not read


def test_held_out_answers_that_never_left_their_thought_are_counted_for_policy_and_base() -> None:
    done, lost = write("qwen3", "<think>aaaa</think>xyz"), write("qwen3", "<think>aaaa")
    metrics = answer_metrics([answer(done), answer(lost)], [answer(lost), answer(lost)])
    assert metrics[EvaluateMetrics.unfinished_thought_share] == 0.5
    assert metrics[EvaluateMetrics.unfinished_thought_share_base] == 1.0
    assert (metrics[EvaluateMetrics.mean_length], metrics[EvaluateMetrics.mean_length_base]) == (2.0, 0.0)
    silent = [answer(replace(done, thought=None))]
    assert answer_metrics(silent, silent)[EvaluateMetrics.unfinished_thought_share] is None


@pytest.mark.parametrize(
    ("share", "tokens", "words"),
    [
        (None, None, None),
        (0.5, 100, None),
        (
            0.75,
            100,
            "75% of the answers are empty, for their thoughts do not end within 100 tokens (generation.thinkingT",
        ),
        (
            1.0,
            None,
            "do not end within 512 tokens (generation.maxTokens, which thoughts share with answers). Raise gen",
        ),
    ],
)
def test_a_person_is_told_when_most_thoughts_do_not_end(
    share: float | None, tokens: int | None, words: str | None
) -> None:
    told = explain_unfinished(share, GenerationSettings(thinking_tokens=tokens))
    assert (told is None) if words is None else (told is not None and words in told)


def test_a_file_has_columns_of_thoughts_only_where_there_are_any(tmp_path: Path) -> None:
    plain, thinking = row(write("qwen3", "Light.", thinking="Off")), row(write("qwen3", "<think>a</think>Light."))
    for name, rows in {"plain": [plain], "thinking": [thinking], "none": []}.items():
        write_rows(tmp_path / name, rows, ROLLOUT)
        assert read_rows(tmp_path / name, ROLLOUT) == rows
    import pyarrow.parquet as pq

    assert "thought" not in pq.read_schema(tmp_path / "plain").names
    assert "thought" in pq.read_schema(tmp_path / "thinking").names
    assert answer_length(thinking) == token_count("Light.") + 1


def test_held_out_answers_are_compared_without_their_thoughts() -> None:
    def answer(text: str) -> Any:
        engine = WritingEngine(template_of("deepseek-r1", thinking="On"), text)
        prompt: Any = {"prompt_id": "p", "messages": [QUESTION]}
        (made,) = sample_answers(cast(Engine, engine), [prompt], Policy(), lengths=Lengths(500, None), watch=None)
        return made

    short, long = answer("a</think>Light."), answer("a long, long thought</think>Light.")
    pair = Pair(short, long)
    assert pair.identical
    assert pair.length_difference == 0
    assert set(ANSWER.names_with(set(long))) == set(long)


@pytest.mark.parametrize(
    ("family", "text", "response"),
    [("qwen3", "<think>first\n\nthen</think>7\n\nmore", "7"), ("deepseek-r1", "first\n\nthen</think>7\n\nmore", "7")],
)
def test_a_task_reads_the_response_without_the_thought(family: str, text: str, response: str) -> None:
    engine = WritingEngine(template_of(family, thinking="On"), text)
    model = EngineLM(cast(Engine, engine), Policy(), None, thinking_tokens=100)
    prompt = model.apply_chat_template(cast(Any, [QUESTION]))
    request = cast(Any, type("R", (), {"args": (prompt, {"until": ["\n\n"], "max_gen_toks": 50}), "task_name": "t"}))
    assert model.generate_until([request]) == [response]
    assert engine.samplings[0].stop == ()
    assert engine.samplings[0].max_tokens == 150


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", Completed("", "", 0)),
        ("a</think>b</think>c", Completed("a", "b</think>c", 9)),
        ("[THINK]a[/THINK]b", Completed("a", "b", 16)),
        ("<|channel>thought\na<channel|>b", Completed("a", "b", 29)),
    ],
)
def test_where_an_answer_begins(text: str, found: Completed) -> None:
    assert part_completion(text) == found
