"""The contract is a seam that the type checker sees: a name that changes there is an error wherever it is used.

A scratch copy of the packages has one metric, one column, one input and one mount renamed in the contract alone; mypy must then
name a file of each side of the seam.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONTRACT = Path("trainer/dynalign_contract")


@dataclass(frozen=True)
class Mutation:
    """A name of the contract that is renamed, and who uses it."""

    file: str
    line: str
    """The beginning of the line that defines the name."""
    name: str
    users: tuple[str, ...]


MUTATIONS = {
    "metric": Mutation(
        "metrics/judge.py",
        "    canary_auc =",
        "canary_auc",
        (
            "trainer/dynalign_trainer/judge/stage.py",
            "operator/dynalign_operator/cli/tables.py",
            "benchmarks/learning.py",
        ),
    ),
    "column": Mutation(
        "records/rollouts.py",
        "    completion_ids:",
        "completion_ids",
        ("trainer/dynalign_trainer/generate/stage.py", "trainer/dynalign_trainer/train/batch.py"),
    ),
    "input": Mutation(
        "inputs.py",
        "    JUDGEMENTS =",
        "JUDGEMENTS",
        ("operator/dynalign_operator/planning/stage_configs.py", "trainer/dynalign_trainer/train/stage.py"),
    ),
    "mount": Mutation(
        "pod_paths.py",
        "CLAIMS_MOUNT",
        "CLAIMS_MOUNT",
        ("operator/dynalign_operator/manifests/mounts.py", "trainer/dynalign_contract/source_files.py"),
    ),
}


def leave_all_but_modules(folder: str, names: list[str]) -> set[str]:
    """Files that a type checker does not read."""
    return {
        name for name in names if Path(folder, name).is_file() and not name.endswith((".py", ".pyi", "py.typed"))
    } | {"__pycache__"}


def check_types(tree: Path) -> list[str]:
    """Lines of mypy's errors."""
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return [line for line in done.stdout.splitlines() if ": error:" in line]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("seams") / "tree"
    tree.mkdir()
    for folder in ROOT.iterdir():
        if folder.is_dir() and folder.name[0] != ".":
            shutil.copytree(folder, tree / folder.name, ignore=leave_all_but_modules)
    if (ROOT / ".mypy_cache").is_dir():
        shutil.copytree(ROOT / ".mypy_cache", tree / ".mypy_cache")
    shutil.copy2(ROOT / "pyproject.toml", tree)
    return tree


@pytest.fixture(scope="module")
def errors(scratch: Path) -> list[str]:
    """What mypy says of the copy with every mutation; it says nothing of the copy without."""
    assert check_types(scratch) == []
    for mutation in MUTATIONS.values():
        path = scratch / CONTRACT / mutation.file
        changed = mutation.line.replace(mutation.name, f"{mutation.name}_renamed")
        text, count = re.subn(f"^{re.escape(mutation.line)}", changed, path.read_text(), flags=re.MULTILINE)
        assert count == 1, f"{mutation.file} does not define {mutation.name} in one line"
        path.write_text(text)
    return check_types(scratch)


@pytest.mark.parametrize("kind", MUTATIONS)
def test_a_renamed_name_is_an_error_on_both_sides(kind: str, errors: list[str]) -> None:
    mutation = MUTATIONS[kind]
    found = {line.partition(":")[0] for line in errors if re.search(rf"\b{mutation.name}\b", line)}
    assert set(mutation.users) <= found
