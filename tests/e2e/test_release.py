"""`make release` builds everything that a release publishes, and all of it carries the version of pyproject.toml."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from lab.cluster import built_tools
from release import dry_run
from release.artifacts import carried_versions, check_wheel, file_names
from release.contexts import IMAGES, build_context, copied
from release.errors import ReleaseError
from release.version import read_version

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of dist/, and the helm of tests/cluster/build.sh."""
    monkeypatch.setattr(dry_run, "DIST", tmp_path / "dist")
    monkeypatch.setattr(dry_run, "find_helm", lambda: str(built_tools() / "helm"))
    return tmp_path


def test_what_is_built_is_of_one_version() -> None:
    version = read_version(dry_run.ROOT)
    files = dry_run.build(version)
    assert [file.name for file in files] == file_names(version)
    for file in files:
        assert {found for _, found in carried_versions(file)} == {version}, file.name


@pytest.mark.parametrize("image", IMAGES)
def test_a_context_has_all_that_the_package_is_built_from(elsewhere: Path, image: str) -> None:
    """The stage `package` of the Dockerfile, without an image: what it copies builds the whole wheel."""
    archive, source = elsewhere / "context.tar.gz", elsewhere / "context"
    build_context(dry_run.ROOT, image, archive)
    with tarfile.open(archive) as context:
        context.extractall(source, filter="data")
    package = elsewhere / "package"
    wanted = [name for name in copied(source / "images" / image / "Dockerfile") if not name.startswith("images")]
    package.mkdir()
    for name in wanted:
        (shutil.copytree if (source / name).is_dir() else shutil.copy)(source / name, package / name)
    uv = str(Path(sys.executable).with_name("uv"))
    built = subprocess.run(
        [uv, "build", "--wheel", "--quiet", "."], cwd=package, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (package / "dist").glob("*.whl")
    check_wheel(dry_run.ROOT, wheel)


def test_a_chart_for_images_of_another_version_ends_it(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chart = Path(shutil.copytree(dry_run.CHART, elsewhere / "dynalign"))
    version = read_version(dry_run.ROOT)
    text = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(text.replace(f'appVersion: "{version}"', 'appVersion: "9.9.9"'))
    monkeypatch.setattr(dry_run, "CHART", chart)
    with pytest.raises(ReleaseError, match=r"Chart\.yaml \(appVersion\) says 9\.9\.9"):
        dry_run.build(version)
