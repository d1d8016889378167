"""lm-evaluation-harness without an engine: what it asks of ours, which score it takes, and what is refused."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import TemplateError
from lm_eval.tasks import TaskManager

from dynalign_contract.config import Policy
from dynalign_contract.errors import BadInputError
from dynalign_contract.settings import OWN_TASKS
from dynalign_trainer.evaluate.harness import measure
from dynalign_trainer.evaluate.harness_model import EngineLM
from dynalign_trainer.evaluate.splitting import Part, interleave
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.engine import Likelihood
from dynalign_trainer.models.sampler import Sample
from dynalign_trainer.tasks import suites
from dynalign_trainer.tasks.suites import load_suites

NO_DATA = Path("/nowhere")
"""Fetch has brought nothing."""


class Letters:
    """A tokenizer whose tokens are characters."""

    bos_token = None
    eos_token_id = 0
    name_or_path = "letters"
    chat_template = "a chat"

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [ord(character) for character in text]

    def apply_chat_template(self, messages: Sequence[dict[str, str]], **_: object) -> str:
        return "".join(f"<{message['role']}>{message['content']}" for message in messages) + "<assistant>"


class Parrot:
    """An engine that says `ok`, and finds the shortest continuation the likeliest."""

    max_length = 64

    def __init__(self) -> None:
        self.tokenizer = Letters()
        self.chat = ChatTemplate(self.tokenizer)
        self.prompts: list[str] = []
        self.samplings: list[Sampling] = []
        self.seeds: list[int] = []

    def forget_prefixes(self) -> None:
        """Nothing is remembered."""

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seeds: Sequence[int], **_: object
    ) -> list[list[Sample]]:
        self.samplings.append(sampling)
        self.seeds += seeds
        self.prompts += ["".join(map(chr, prompt)) for prompt in prompts]
        return [[Sample((1,), (0.0,), "stop", "ok")] for _ in prompts]

    def score_continuations(
        self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]], **_: object
    ) -> list[Likelihood]:
        self.prompts += ["".join(map(chr, context)) for context in contexts]
        return [Likelihood(-float(len(continuation)), greedy=False) for continuation in continuations]


def ask(engine: Parrot) -> EngineLM:
    return EngineLM(engine, Policy(), None)  # type: ignore[arg-type]


def request(text: str, options: object) -> Any:
    return SimpleNamespace(args=(text, options), task_name="t")


def write_task(folder: Path, text: str) -> None:
    (folder / "dynalign_test.yaml").write_text(f"task: dynalign_test\n{text}")


@pytest.mark.parametrize("name", OWN_TASKS)
def test_own_tasks_are_found_with_their_items(name: str) -> None:
    (whole,) = load_suites([name], None, NO_DATA)
    (part,) = load_suites([name], 5, NO_DATA)
    assert whole.items in (64, 72)
    assert part.items == 5


def test_choices_are_asked_as_plain_text_and_instructions_as_chats() -> None:
    engine = Parrot()
    rows = []
    for suite in load_suites(list(OWN_TASKS), 2, NO_DATA):
        rows += measure(engine, suite, Policy(), None)  # type: ignore[arg-type]
    assert [(row["task"], row["item"], row["metric"]) for row in rows] == [
        ("dynalign_choices", "dynalign_choices/0", "acc"),
        ("dynalign_choices", "dynalign_choices/1", "acc"),
        ("dynalign_instructions", "dynalign_instructions/0", "kept"),
        ("dynalign_instructions", "dynalign_instructions/1", "kept"),
    ]
    assert not engine.prompts[0].startswith("<user>")
    assert engine.prompts[-1].endswith("<assistant>")
    assert [row["score"] for row in rows[2:]] == [1.0, 1.0]
    assert rows[2]["response"] == "ok"
    assert len({row["request"] for row in rows}) == 4


SOURCE = "dynalign_trainer.tasks.own.documents.load_choices"
WITH_EXAMPLES = f"""\
custom_dataset: !function {SOURCE}
test_split: test
fewshot_split: test
num_fewshot: 2
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{question}}}}"
generation_kwargs: {{until: ["."], temperature: 0.5, do_sample: true}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("task", [*OWN_TASKS, "dynalign_test"])
def test_shards_ask_together_what_one_would_have_asked(
    task: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each item once, with the same examples before it and the same seed, whichever policy is asked."""
    if task not in OWN_TASKS:
        monkeypatch.setattr(suites, "_OWN", tmp_path)
        write_task(tmp_path, WITH_EXAMPLES)
    (suite,) = load_suites([task], 5, NO_DATA)
    whole = Parrot()
    expected = measure(whole, suite, Policy(), None)  # type: ignore[arg-type]
    shares, asked = [], []
    for index in range(count):
        engine = Parrot()
        shares.append(measure(engine, suite, Policy(version="p"), None, part=Part(index, count)))  # type: ignore[arg-type]
        asked += list(zip(engine.prompts, engine.seeds or [0] * len(engine.prompts), strict=True))
    assert [{**row, "policy": "base"} for row in interleave(shares)] == expected
    assert sorted(asked) == sorted(zip(whole.prompts, whole.seeds or [0] * len(whole.prompts), strict=True))


@pytest.mark.parametrize("is_prefilled", [False, True])
def test_a_template_that_refuses_a_tasks_chat_is_a_sentence(
    is_prefilled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise TemplateError("System role not supported")

    monkeypatch.setattr(Letters, "apply_chat_template", refuse)
    with pytest.raises(BadInputError, match=r"chat template does not take a chat \(System role not supported\)"):
        ask(Parrot()).apply_chat_template(
            [{"role": "system", "content": "Be brief."}], add_generation_prompt=not is_prefilled
        )


@pytest.mark.parametrize(
    ("options", "sampling"),
    [
        ({}, Sampling(temperature=0.0, max_tokens=32)),
        ({"until": "\n", "max_gen_toks": 8}, Sampling(temperature=0.0, max_tokens=8, stop=("\n",))),
        ({"until": ["a", "b"], "temperature": 0.7}, Sampling(temperature=0.7, max_tokens=32, stop=("a", "b"))),
        ({"do_sample": False, "temperature": 0.7, "top_p": 0.9}, Sampling(temperature=0.0, max_tokens=32, top_p=0.9)),
        ({"max_gen_toks": 1280}, Sampling(temperature=0.0, max_tokens=32)),
    ],
    ids=["nothing said", "one stop", "sampled", "greedy all the same", "more than half the window"],
)
def test_how_a_task_wants_to_be_answered(options: dict[str, Any], sampling: Sampling) -> None:
    engine = Parrot()
    assert ask(engine).generate_until([request("say ok", options)]) == ["ok"]
    assert engine.samplings == [sampling]


def test_requests_of_like_sampling_share_a_call_and_keep_their_order() -> None:
    engine = Parrot()
    short, long = {"max_gen_toks": 4}, {"max_gen_toks": 9}
    asked = [request("a", short), request("b", long), request("c", short)]
    assert ask(engine).generate_until(asked) == ["ok"] * 3
    assert engine.prompts == ["a", "c", "b"]
    assert [sampling.max_tokens for sampling in engine.samplings] == [4, 9]


def test_what_is_too_long_loses_its_beginning() -> None:
    engine = Parrot()
    lm = ask(engine)
    lm.generate_until([request("x" * 100 + "the end", {"max_gen_toks": 16})])
    lm.loglikelihood([request("y" * 100 + "?", " yes")])
    assert engine.prompts == ["x" * 41 + "the end", "y" * 58 + "?"]


def test_blanks_between_context_and_continuation_belong_to_the_continuation() -> None:
    engine = Parrot()
    found = ask(engine).loglikelihood([request("The end ", "is"), request("", "is")])
    assert engine.prompts == ["The end", "\0"]
    assert [logprob for logprob, _ in found] == [-3.0, -2.0]


def test_data_out_of_reach_are_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "_OWN", tmp_path)
    write_task(
        tmp_path, f"dataset_path: json\ndataset_kwargs: {{data_files: {tmp_path}/none.json}}\ntest_split: train\n"
    )
    with pytest.raises(BadInputError, match=r"data of the task dynalign_test .* cannot be loaded: .*HF_HOME"):
        load_suites(["dynalign_test"], None, NO_DATA)
    (tmp_path / "data" / "dynalign_test").mkdir(parents=True)
    with pytest.raises(BadInputError, match=rf"in {tmp_path}/data/dynalign_test cannot be loaded"):
        load_suites(["dynalign_test"], None, tmp_path / "data")


def test_a_task_without_a_score_per_item_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "_OWN", tmp_path)
    write_task(
        tmp_path,
        f"custom_dataset: !function {SOURCE}\ntest_split: test\noutput_type: loglikelihood_rolling\n"
        'doc_to_text: ""\ndoc_to_target: "{{question}}"\n'
        "metric_list: [{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}]\n",
    )
    (suite,) = load_suites(["dynalign_test"], 2, NO_DATA)
    with pytest.raises(BadInputError, match="has no score per item for which more is better"):
        measure(Parrot(), suite, Policy(), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [("gsm8k", "dynalign_choices"), ("arc_easy", "hellaswag"), ("mmlu_anatomy",)])
def test_tasks_in_folders_of_their_names_are_opened_without_all_others(names: Sequence[str]) -> None:
    opened = suites.open_harness(names).all_tasks
    assert set(names) | set(OWN_TASKS) <= set(opened)
    assert "boolq" not in opened


@pytest.mark.slow
def test_a_task_is_the_one_of_the_harness_whether_all_files_are_read_or_its_folder_alone() -> None:
    """The harness reads folders in their order and keeps the first task of a name."""
    whole = suites.open_harness(["boolq", "mmlu"])
    assert {"boolq", "mmlu", "mmlu_anatomy", *OWN_TASKS} <= set(whole.all_tasks), "elsewhere, a group, a task, ours"
    by_folder: dict[Path, list[str]] = {}
    for name in whole.all_subtasks:
        folder = suites._folder_of(name)
        if folder is not None:
            by_folder.setdefault(folder, []).append(name)
    checked = 0
    for folder, names in by_folder.items():
        alone = TaskManager(include_path=str(folder), include_defaults=False).task_index
        for name in alone.keys() & names:
            assert alone[name].yaml_path == whole.task_index[name].yaml_path, name
            checked += 1
    assert checked > 1000
