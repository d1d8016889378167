"""Tests and benchmarks share `lab`, and do not import each other; a benchmark's own tests import it."""

import ast
from pathlib import Path

TESTS = Path(__file__).parents[2]
OWN_TESTS = TESTS / "unit" / "benchmarks"


def imported(path: Path) -> set[str]:
    """First names of all modules that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.partition(".")[0] for name in plain | {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}}


def test_only_the_tests_of_benchmarks_import_benchmarks() -> None:
    importers = {path for path in TESTS.rglob("*.py") if "benchmarks" in imported(path)}
    assert importers, "nothing was found, so nothing was checked"
    assert {path for path in importers if OWN_TESTS not in path.parents} == set()
