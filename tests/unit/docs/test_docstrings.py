"""Docstrings stand alone in `help()` and `kubectl explain`, and source files keep a size that can be read at once."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = (
    "trainer/dynalign_contract",
    "trainer/dynalign_report",
    "trainer/dynalign_trainer",
    "operator/dynalign_operator",
)
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
ELLIPSES = ("Of ", "The same", "As ", "Its ", "Those ", "By ", "From ")
"""Beginnings that need the line before, or the name, to be understood."""
LONGEST_FUNCTION = 55
LONGEST_FILE = 400
MEDIAN_FILE = 90


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Texts that stand as statements: docstrings of modules, classes, functions and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


@pytest.mark.parametrize("package", PACKAGES)
def test_every_docstring_can_be_understood_alone(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{text.lineno}: {str(text.value).splitlines()[0]}"
        for path in SOURCES
        if path.is_relative_to(ROOT / package)
        for text in docstrings(ast.parse(path.read_text()))
        if str(text.value).startswith(ELLIPSES)
    ]
    assert found == []


def test_no_function_and_no_file_is_too_long() -> None:
    tests = [path for folder in ("tests", "benchmarks", "lab") for path in sorted((ROOT / folder).rglob("*.py"))]
    found = []
    for path in (*SOURCES, *tests):
        text = path.read_text()
        lines = text.count("\n")
        if lines > LONGEST_FILE:
            found.append(f"{path.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {length} lines")
    assert found == []


def test_half_of_the_files_are_short() -> None:
    assert statistics.median(path.read_text().count("\n") for path in SOURCES) <= MEDIAN_FILE
