"""`make release`: build and check what a release publishes, and print what would be tagged. Pushes nothing."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from release.artifacts import check_chart, check_wheel, file_names, find_drift
from release.changelog import find_faults, section
from release.contexts import IMAGES, build_context, context_name
from release.errors import ReleaseError
from release.version import find_disagreements, read_version

ROOT: Final = Path(__file__).parents[1]
DIST: Final = ROOT / "dist"
CHART: Final = ROOT / "charts" / "dynalign"


def main() -> None:
    """Build into dist/; exit code 1 when something is missing for a release, after all of it has been named."""
    version = read_version(ROOT)
    try:
        files = build(version)
    except ReleaseError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    (DIST / "NOTES.md").write_text(section((ROOT / "CHANGELOG.md").read_text(), version) + "\n")
    sums = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    (DIST / "SHA256SUMS").write_text(sums)
    sys.stdout.write(f"built in dist/:\n{sums}")
    missing = [*find_missing(version)]
    for sentence in missing:
        sys.stderr.write(f"not yet: {sentence}\n")
    if missing:
        sys.exit(1)
    images = f"dynalign-operator:{version}, dynalign-trainer:{version}, dynalign-trainer:{version}-cpu"
    sys.stdout.write(
        f"would tag {git('rev-parse', '--short', 'HEAD')}:  git tag -s v{version} -m 'dynalign {version}'\n"
        f"would publish the images {images}\n"
        "nothing was tagged or pushed; docs/releasing.md says how to go on\n"
    )


def build(version: str) -> list[Path]:
    """Source distribution, wheel, chart package and build contexts, all of this version. Raises ReleaseError."""
    shutil.rmtree(DIST, ignore_errors=True)
    run("uv", str(ROOT / ".venv/bin/uv"), "build", "--quiet", "--out-dir", str(DIST), str(ROOT))
    run("helm", find_helm(), "package", "--destination", str(DIST), str(CHART))
    for image in IMAGES:
        build_context(ROOT, image, DIST / context_name(image, version))
    files = [DIST / name for name in file_names(version)]
    if absent := [file.name for file in files if not file.is_file()]:
        raise ReleaseError(f"the build did not leave {', '.join(absent)} in dist/; it left {names(DIST)}")
    check_wheel(ROOT, DIST / f"dynalign-{version}-py3-none-any.whl")
    check_chart(DIST / f"dynalign-{version}.tgz")
    if drift := [*find_drift(files, version)]:
        raise ReleaseError("\n".join(drift))
    return files


def names(folder: Path) -> str:
    """Names of what is in a folder."""
    return ", ".join(sorted(path.name for path in folder.iterdir()))


def find_missing(version: str) -> Iterator[str]:
    """What has to be done before this version can be tagged, a sentence each."""
    yield from find_disagreements(ROOT)
    text = (ROOT / "CHANGELOG.md").read_text()
    yield from (f"CHANGELOG.md: {fault}" for fault in find_faults(text))
    if not section(text, version):
        yield f"CHANGELOG.md has no section for {version}; run: make version VERSION=X.Y.Z"
    if git("status", "--porcelain"):
        yield "the working tree has changes that are not committed"
    if git("tag", "--list", f"v{version}") and git("rev-parse", f"v{version}^{{commit}}") != git("rev-parse", "HEAD"):
        yield f"v{version} tags another commit; a released version never changes. Run: make version VERSION=X.Y.Z"


def find_helm() -> str:
    """helm of the PATH, else the one that tests/cluster/build.sh makes. Raises ReleaseError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynalign-tests"
    built = Path(os.environ.get("DYNALIGN_TEST_CACHE") or cache) / "bin" / "helm"
    found = shutil.which("helm") or (str(built) if built.is_file() else None)
    if found is None:
        raise ReleaseError("there is no helm: install Helm 3, or run tests/cluster/build.sh, which builds it")
    return found


def git(*arguments: str) -> str:
    """Output of a git command on the repository."""
    result = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def run(name: str, *command: str) -> None:
    """Run a tool. Raises ReleaseError with what it printed."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ReleaseError(f"{name} failed:\n{result.stdout}{result.stderr}")


if __name__ == "__main__":
    main()
