"""Files of prompts as people have them: encodings, line ends, shapes of rows, and what is said of those that cannot be read."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynalign_contract.errors import BadInputError
from dynalign_contract.supplied.files import SuppliedFile, read_supplied
from dynalign_contract.supplied.rows import Note

ASKED = "Why is the sky blue?"
ASK = {"role": "user", "content": ASKED}
ANSWER = {"role": "assistant", "content": "Because of scattering."}
KIND = {"role": "system", "content": "Be kind."}


def read(folder: Path, data: bytes | str, name: str = "mine.jsonl") -> SuppliedFile:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_supplied(path, "prompts.supplied")


def rows(*found: Any) -> str:
    return "\n".join(json.dumps(row) for row in found)


LINES = '{"prompt": "Grüße, 世界?"}\n{"prompt": "Why?"}\n'


@pytest.mark.parametrize(
    "data",
    [
        LINES.encode(),
        LINES.encode("utf-8-sig"),
        LINES.replace("\n", "\r\n").encode("utf-8-sig"),
        LINES.replace("\n", "\r").encode(),
        LINES.encode("utf-16"),
        LINES.replace("\n", "\r\n").encode("utf-16"),
        b"\xfe\xff" + LINES.encode("utf-16-be"),
        LINES.encode("utf-32"),
        b"\n\n  \n" + LINES.encode(),
    ],
    ids=["plain", "mark", "windows", "macintosh", "utf-16", "windows-utf-16", "big-endian", "utf-32", "empty lines"],
)
def test_every_encoding_gives_the_same_texts(tmp_path: Path, data: bytes) -> None:
    assert [chat[0]["content"] for chat in read(tmp_path, data).chats] == ["Grüße, 世界?", "Why?"]


def test_separators_of_unicode_belong_to_the_text(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three"
    found = read(tmp_path, json.dumps({"prompt": text}, ensure_ascii=False))
    assert found.chats == [({"role": "user", "content": text},)]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ('{"prompt": "a"}\n{"prompt": "Grüße"}'.encode("latin-1"), "is not UTF-8 text: line 2 has the byte 0xfc"),
        (LINES.encode("utf-16")[:-1], "begins as UTF-16 text but is damaged"),
        ('{"prompt": "Grüße"}'.encode("utf-16-le"), "looks like UTF-16 without a byte order mark"),
        (b'{"prompt": "a"}\n{"prompt": "b\\ud83d c"}', r"line 2: prompt holds half of a character (\ud83d"),
        (b'{"prompt": "a\\u0000"}', "line 1: prompt holds a NUL character"),
        (b'{"messages": [{"role": "user", "content": "\\udc00"}]}', r"messages[0].content holds half of a character"),
    ],
)
def test_what_is_no_text_is_said_with_its_line(tmp_path: Path, data: bytes, sentence: str) -> None:
    with pytest.raises(BadInputError) as error:
        read(tmp_path, data)
    assert sentence in str(error.value)


SHAPES: dict[str, tuple[Any, list[dict[str, str]], set[Note]]] = {
    "text": ({"prompt": ASKED, "id": 7}, [ASK], set()),
    "trl": ({"prompt": [KIND, ASK], "answer": "x"}, [KIND, ASK], set()),
    "messages": ({"messages": [KIND, ASK]}, [KIND, ASK], set()),
    "sft": ({"messages": [ASK, ANSWER]}, [ASK], {Note.ANSWER_LEFT_OFF}),
    "dialogue": ({"messages": [ASK, ANSWER, ASK, ANSWER]}, [ASK, ANSWER, ASK], {Note.ANSWER_LEFT_OFF}),
    "ultrachat": ({"prompt": ASKED, "messages": [ASK, ANSWER]}, [ASK], {Note.SEVERAL_COLUMNS}),
    "messages that are a text": ({"messages": ASKED}, [ASK], set()),
    "one column empty": ({"prompt": None, "messages": [ASK]}, [ASK], set()),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": "x"}]},
        [ASK],
        {Note.ANSWER_LEFT_OFF},
    ),
    "sharegpt with a system column": (
        {"conversations": [{"from": "human", "value": ASKED}], "system": "Be kind."},
        [KIND, ASK],
        {Note.SYSTEM_COLUMN},
    ),
    "an empty system turn": ({"messages": [{"role": "system", "content": ""}, ASK]}, [ASK], set()),
    "developer": ({"messages": [{"role": "developer", "content": "Be kind."}, ASK]}, [KIND, ASK], set()),
    "roles in capitals": ({"messages": [{"role": "User", "content": ASKED}]}, [ASK], set()),
    "content parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why is "}, {"text": "the sky blue?"}]}]},
        [ASK],
        set(),
    ),
    "a bare list of turns": ([KIND, ASK], [KIND, ASK], set()),
    "turns written as a text": ({"prompt": json.dumps([KIND, ASK])}, [KIND, ASK], {Note.JSON_IN_TEXT}),
    "a text that only looks so": (
        {"prompt": '[{"a": 1}] is what?'},
        [{"role": "user", "content": '[{"a": 1}] is what?'}],
        set(),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_read_from_lines(tmp_path: Path, name: str) -> None:
    row, turns, notes = SHAPES[name]
    found = read(tmp_path, rows(row))
    assert [list(chat) for chat in found.chats] == [turns]
    assert found.rows[0].chat.notes == notes
    assert len(found.notes()) == len(notes)


@pytest.mark.parametrize("name", [name for name, (row, _, _) in SHAPES.items() if isinstance(row, dict)])
def test_every_shape_is_read_from_parquet(tmp_path: Path, name: str) -> None:
    row, turns, notes = SHAPES[name]
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "mine.parquet")
    found = read_supplied(tmp_path / "mine.parquet", "prompts.supplied")
    assert [list(chat) for chat in found.chats] == [turns]
    assert found.rows[0].chat.notes == notes


@pytest.mark.parametrize("name", ["mine.json", "mine.jsonl"])
def test_a_json_array_holds_rows_whatever_the_file_is_called(tmp_path: Path, name: str) -> None:
    found = read(tmp_path, json.dumps([{"prompt": ASKED}, {"messages": [KIND, ASK]}], indent=1), name)
    assert found.chats == [(ASK,), (KIND, ASK)]
    assert [row.place for row in found.rows] == ["row 1", "row 2"]


def test_lines_in_a_json_file_are_read(tmp_path: Path) -> None:
    assert len(read(tmp_path, LINES, "train.json").rows) == 2


def test_what_was_made_of_the_rows_is_counted(tmp_path: Path) -> None:
    found = read(tmp_path, rows({"messages": [ASK, ANSWER]}, {"messages": [ASK, ANSWER]}, {"prompt": "Why?"}))
    assert found.notes() == [f"{found.path}: in 2 of 3 rows the last answer was left off."]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "mine.jsonl holds no prompts"),
        ('{"prompt": "a"}\n{"prompt": \n', "mine.jsonl, line 2 is not JSON"),
        ("[" * 100_000, "line 1 is not JSON (it is nested too deeply)"),
        (rows({"prompt": "a"}, {"prompt": 3}), "line 2: prompt is a number; write a text or a list of turns."),
        (rows({"prompt": "  "}), "line 1: prompt is empty; write a text."),
        (rows({"prompt": None}), "line 1: prompt is empty (null)."),
        (
            rows({"question": "a", "answer": "b"}),
            "the row has the columns question, answer; rename question to prompt.",
        ),
        (rows({"instruction": "a", "input": ""}), "rename instruction to prompt"),
        (rows({"chosen": [], "rejected": []}), "the row has answers (chosen, rejected) and no prompt of its own"),
        (rows("a"), "line 1: the row is a text, not an object."),
        (rows(7), "line 1: the row is a number, not an object."),
        (rows({"messages": []}), "messages holds no turn of the user's"),
        (
            rows({"messages": [{"role": "robot", "content": "a"}]}),
            "messages[0] has the role 'robot'; write system, user",
        ),
        (rows({"messages": [{"role": "user"}]}), "messages[0] has no content; write a text."),
        (rows({"messages": [{"content": "a"}]}), "messages[0] has no role; write system, user or assistant."),
        (rows({"messages": ["a"]}), "messages[0] is a text; write a turn as"),
        (rows({"messages": [ANSWER]}), "messages holds no turn of the user's"),
        (rows({"messages": [ASK, KIND]}), "messages ends with a system turn; the last turn must be the user's."),
        (rows({"messages": [ASK, {"role": "tool", "content": "42"}]}), "messages[1] is a turn of a tool (tool)"),
        (
            rows({"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [{}]}, ASK]}),
            "messages[1] calls a tool, which cannot be used; leave the row out.",
        ),
        (
            rows({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}),
            "content[0] is of the type 'image_url', and only texts can be used; leave the row out.",
        ),
        (
            json.dumps({"data": [{"prompt": "a"}]}, indent=1),
            "one JSON object over several lines; it has its rows in 'data'",
        ),
    ],
)
def test_bad_rows_are_refused_with_their_place(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(BadInputError) as error:
        read(tmp_path, text)
    assert sentence in str(error.value)
    assert "pydantic" not in str(error.value)
    assert "Value error" not in str(error.value)


def test_all_bad_rows_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadInputError) as error:
        read(tmp_path, rows({"prompt": 1}, {"prompt": "a"}, {"prompt": 2}, {"prompt": ""}))
    assert "3 of 4 rows cannot be used: line 1, line 3, line 4." in str(error.value)
    assert "line 1: prompt is a number" in str(error.value)
    assert "line 4: prompt is empty" in str(error.value)


def test_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    pq.write_table(pa.table({"question": ["a"]}), tmp_path / "other.parquet")
    pq.write_table(pa.table({"prompt": [1, 2]}), tmp_path / "numbers.parquet")
    (tmp_path / "mine.csv").write_text("prompt\nHello\n")
    for name, message in {
        "absent.jsonl": "there is no file .*absent.jsonl",
        "mine.csv": "is no .jsonl, .json or .parquet file",
        "broken.parquet": "broken.parquet cannot be read as Parquet",
        "other.parquet": "row 1: the row has the columns question; rename question to prompt",
        "numbers.parquet": "row 1: prompt is a number",
    }.items():
        with pytest.raises(BadInputError, match=message):
            read_supplied(tmp_path / name, "prompts.supplied")


VALUES = [("7", "7"), (7, "7"), (2.5, "2.5"), (True, "true"), ("", ""), (None, None), (float("nan"), None)]


@pytest.mark.parametrize(("value", "text"), VALUES)
@pytest.mark.parametrize("name", ["mine.jsonl", "mine.parquet"])
def test_columns_that_are_asked_for_are_kept_as_text(tmp_path: Path, name: str, value: Any, text: str | None) -> None:
    row = {"prompt": ASKED, "answer": value, "other": "left alone"}
    if name.endswith("jsonl"):
        (tmp_path / name).write_text(json.dumps(row))
    else:
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / name)
    (found,) = read_supplied(tmp_path / name, "prompts.supplied", ["answer", "absent"]).rows
    assert found.chat.columns == ({} if text is None else {"answer": text})
    assert found.turns == (ASK,)


def test_a_column_that_is_no_text_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(rows({"prompt": ASKED, "answer": ["7", "8"]}))
    assert read_supplied(tmp_path / "mine.jsonl", "prompts.supplied").rows
    with pytest.raises(BadInputError, match=r"line 1: answer is a list; write a text or a number"):
        read_supplied(tmp_path / "mine.jsonl", "prompts.supplied", ["answer"])
