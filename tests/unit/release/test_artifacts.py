"""Every file of a release carries the one version: what was built is opened, and a file of another version is named."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from release.artifacts import carried_versions, file_names, find_drift
from release.contexts import IMAGES, build_context, copied, read_allowed
from release.errors import ReleaseError
from release.version import read_version

ROOT = Path(__file__).parents[3]


def write_wheel(file: Path, version: str) -> None:
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr(f"dynalign-{version}.dist-info/METADATA", f"Name: dynalign\nVersion: {version}\n")


def write_archive(files: dict[str, str]) -> Callable[[Path, str], None]:
    def write(file: Path, version: str) -> None:
        with tarfile.open(file, "w:gz") as archive:
            for name, text in files.items():
                data = text.replace("@", version).encode()
                member = tarfile.TarInfo(name.replace("@", version))
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))

    return write


FORMS: dict[str, tuple[Callable[[Path, str], None], int]] = {
    "dynalign.whl": (write_wheel, 1),
    "dynalign.tar.gz": (
        write_archive({"d-1/PKG-INFO": "Version: @\n", "d-1/pyproject.toml": '[project]\nversion = "@"\n'}),
        2,
    ),
    "dynalign.tgz": (write_archive({"dynalign/Chart.yaml": 'version: @\nappVersion: "@"\n'}), 2),
    "context.tar.gz": (
        write_archive(
            {
                "images/operator/Dockerfile": "ARG BASE_IMAGE=x:1\nARG VERSION=@\n",
                "pyproject.toml": '[project]\nversion = "@"\n',
            }
        ),
        2,
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_file_of_another_version_is_named_at_each_place(name: str, tmp_path: Path) -> None:
    write, places = FORMS[name]
    write(tmp_path / name, "1.2.3")
    assert list(find_drift([tmp_path / name], "1.2.3")) == []
    drift = list(find_drift([tmp_path / name], "1.2.4"))
    assert len(drift) == places
    assert all(sentence.startswith(f"{name}: ") and "says 1.2.3" in sentence for sentence in drift)


@pytest.mark.parametrize("image", IMAGES)
def test_the_context_of_an_image_has_what_its_dockerfile_copies_and_the_version(image: str, tmp_path: Path) -> None:
    file = tmp_path / "context.tar.gz"
    build_context(ROOT, image, file)
    with tarfile.open(file) as archive:
        names = archive.getnames()
    assert f"images/{image}/Dockerfile" in names
    assert not [name for name in names if name.startswith(("tests/", "docs/", ".git"))]
    for source in copied(ROOT / "images" / image / "Dockerfile"):
        assert any(name == source or name.startswith(f"{source}/") for name in names), source
    assert {version for _, version in carried_versions(file)} == {read_version(ROOT)}


def test_a_dockerfile_that_copies_what_is_kept_out_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "operator"
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM x\nCOPY README.md notes ./\n")
    (folder / "Dockerfile.dockerignore").write_text("*\n!README.md\n")
    (tmp_path / "README.md").touch()
    (tmp_path / "notes").touch()
    _git_init(tmp_path)
    with pytest.raises(ReleaseError, match="copies notes, which"):
        build_context(tmp_path, "operator", tmp_path / "context.tar.gz")


def test_an_ignore_file_that_lets_everything_in_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ignore").write_text("**/__pycache__\n")
    with pytest.raises(ReleaseError, match=r"does not begin with \*"):
        read_allowed(tmp_path / "ignore")


def test_a_release_is_the_packages_the_chart_and_a_context_for_each_image() -> None:
    assert file_names("1.2.3") == [
        "dynalign-1.2.3.tar.gz",
        "dynalign-1.2.3-py3-none-any.whl",
        "dynalign-1.2.3.tgz",
        "dynalign-operator-1.2.3-context.tar.gz",
        "dynalign-trainer-1.2.3-context.tar.gz",
    ]


def _git_init(folder: Path) -> None:
    import subprocess

    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "add", "-A"], check=True)
