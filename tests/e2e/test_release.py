"""`make release` builds everything that a release publishes, and all of it carries the version of pyproject.toml."""

import shutil
from pathlib import Path

import pytest

from lab.cluster import built_tools
from release import dry_run
from release.artifacts import carried_versions, file_names
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


def test_a_chart_for_images_of_another_version_ends_it(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chart = Path(shutil.copytree(dry_run.CHART, elsewhere / "dynalign"))
    version = read_version(dry_run.ROOT)
    text = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(text.replace(f'appVersion: "{version}"', 'appVersion: "9.9.9"'))
    monkeypatch.setattr(dry_run, "CHART", chart)
    with pytest.raises(ReleaseError, match=r"Chart\.yaml \(appVersion\) says 9\.9\.9"):
        dry_run.build(version)
