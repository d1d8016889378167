"""The page about Python: its session prints what stands there, and its other blocks call what exists."""

import ast
import doctest
from pathlib import Path

import pytest

from dynalign import Run
from support.pages import ROOT, blocks
from support.report_runs import a_work_folder

PAGE = ROOT / "docs/python.md"
BLOCKS = [block for block in blocks(PAGE) if block.language == "python"]
SESSIONS = [block for block in BLOCKS if ">>>" in block.text]


def test_the_session_prints_what_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    a_work_folder().write(Path("runs/r"))
    (session,) = SESSIONS
    examples = doctest.DocTestParser().get_doctest(session.text, {}, "docs/python.md", str(PAGE), session.line)
    assert len(examples.examples) > 5
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    assert runner.run(examples, out=said.append).failed == 0, "".join(said)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block not in SESSIONS], ids=str)
def test_what_a_block_calls_exists(block: object) -> None:
    text = block.text  # type: ignore[attr-defined]
    called = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    names = [function.attr for function in called if isinstance(function, ast.Attribute)]
    assert names
    assert all(hasattr(Run, name) for name in names), names
