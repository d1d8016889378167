"""Prompts of the user's own: what is read, what is refused and with which words."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynalign_contract.config import PromptsParams
from dynalign_contract.errors import BadInputError
from dynalign_contract.objective import builtin_objective
from dynalign_contract.settings import PromptSettings, SuppliedPrompts
from dynalign_trainer.prompts.stage import read_supply
from dynalign_trainer.prompts.supplied import read_supplied, supplied_path, take_slice

CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
USER = ({"role": "user", "content": "Hello"},)


def jsonl(folder: Path, text: str) -> Path:
    path = folder / "mine.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def test_jsonl_holds_texts_and_chats(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        '{"prompt": "Hello", "id": 7}\n\n{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", '
        '"content": "Hello"}]}\n',
    )
    assert read_supplied(path, "prompts.supplied") == [USER, tuple(CHAT)]


def test_parquet_holds_texts_or_chats(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["Hello"], "label": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"messages": [CHAT]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"prompt": ["Hello", None], "messages": [None, CHAT]}), tmp_path / "c.parquet")
    assert read_supplied(tmp_path / "a.parquet", "prompts.supplied") == [USER]
    assert read_supplied(tmp_path / "b.parquet", "prompts.supplied") == [tuple(CHAT)]
    assert read_supplied(tmp_path / "c.parquet", "prompts.supplied") == [USER, tuple(CHAT)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.jsonl holds no prompts"),
        ('{"prompt": "a"}\n{"prompt": \n', "mine.jsonl, line 2 is not JSON"),
        ('{"prompt": "a"}\n\n{"prompt": 3}', "line 3: prompt: Input should be a valid string"),
        ('{"prompt": ""}', "line 1: prompt: String should have at least 1 character"),
        ('{"question": "a"}', 'line 1: .*exactly one of "prompt" and "messages"'),
        ('{"prompt": "a", "messages": [{"role": "user", "content": "a"}]}', 'exactly one of "prompt" and "messages"'),
        ('["a"]', "line 1: Input should be a valid dictionary"),
        ('{"messages": []}', "line 1: messages: List should have at least 1 item"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "messages.0.role: Input should be 'system'"),
        ('{"messages": [{"role": "user"}]}', "messages.0.content: Field required"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "the last message must be the user's"),
    ],
)
def test_bad_lines_are_refused_by_number(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        read_supplied(jsonl(tmp_path, text), "prompts.supplied")


def test_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "Grüße"}'.encode("latin-1"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    pq.write_table(pa.table({"question": ["a"]}), tmp_path / "other.parquet")
    pq.write_table(pa.table({"prompt": [1, 2]}), tmp_path / "numbers.parquet")
    (tmp_path / "mine.csv").write_text("prompt\nHello\n")
    for name, message in {
        "absent.jsonl": "there is no file .*absent.jsonl",
        "mine.csv": "neither .jsonl nor .parquet",
        "latin.jsonl": "latin.jsonl cannot be read as UTF-8",
        "broken.parquet": "broken.parquet cannot be read as Parquet",
        "other.parquet": "other.parquet has the columns question",
        "numbers.parquet": "row 1: prompt: Input should be a valid string",
    }.items():
        with pytest.raises(BadInputError, match=message):
            read_supplied(tmp_path / name, "prompts.supplied")


def test_claims_are_found_where_pods_mount_them() -> None:
    assert supplied_path("pvc://data/sets/mine.jsonl") == Path("/claims/data/sets/mine.jsonl")
    assert supplied_path("./mine.jsonl") == Path("mine.jsonl")


def test_the_file_is_dealt_out_over_the_iterations() -> None:
    chats = [({"role": "user", "content": str(i)},) for i in range(6)]
    turns = [take_slice(chats, 3, turn, random.Random(5)) for turn in range(3)]
    assert sorted(c[0]["content"] for c in turns[0] + turns[1]) == [str(i) for i in range(6)]
    assert turns[2] == turns[0]
    assert len(take_slice(chats, 9, 0, random.Random(5))) == 6


def test_a_fifth_of_the_file_is_held_out_for_good(tmp_path: Path) -> None:
    path = jsonl(tmp_path, "\n".join(f'{{"prompt": "question {i}"}}' for i in range(20)))
    prompts = PromptSettings(held_out=64, supplied=SuppliedPrompts(uri=str(path)))
    params = PromptsParams(objective=builtin_objective("collective-agency"), prompts=prompts, reserve_tokens=8)
    supply = read_supply(params, seed=3)
    assert (len(supply.held_out), len(supply.training)) == (4, 16)
    assert not any(chat in supply.training for chat in supply.held_out)
    assert read_supply(params, seed=3) == supply
