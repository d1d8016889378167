"""What was built for a release: which version each file carries, and whether it is whole."""

import email.parser
import re
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from release.contexts import IMAGES, context_name
from release.errors import ReleaseError

PACKAGES: Final = ("dynalign", "dynalign_contract", "dynalign_operator", "dynalign_report", "dynalign_trainer")


def file_names(version: str) -> list[str]:
    """Names of everything that a release publishes beside the images."""
    python = [f"dynalign-{version}.tar.gz", f"dynalign-{version}-py3-none-any.whl"]
    return [*python, f"dynalign-{version}.tgz", *(context_name(image, version) for image in IMAGES)]


def find_drift(files: list[Path], version: str) -> Iterator[str]:
    """One sentence for each place within the files that carries another version than this."""
    for file in files:
        for place, found in carried_versions(file):
            if found != version:
                yield f"{file.name}: {place} says {found}, pyproject.toml {version}"


def carried_versions(file: Path) -> Iterator[tuple[str, str]]:
    """Places and versions within a wheel, a source distribution, a chart package or the context of an image."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            yield name, _metadata_version(wheel.read(name).decode())
        return
    with tarfile.open(file) as archive:
        for name in archive.getnames():
            match Path(name).parts:
                case [_, "PKG-INFO"]:
                    yield name, _metadata_version(_read(archive, name))
                case ["dynalign", "Chart.yaml"]:
                    chart = yaml.safe_load(_read(archive, name))
                    yield f"{name} (version)", str(chart["version"])
                    yield f"{name} (appVersion)", str(chart["appVersion"])
                case ["pyproject.toml"] | [_, "pyproject.toml"]:
                    yield name, str(tomllib.loads(_read(archive, name))["project"]["version"])
                case ["images", _, "Dockerfile"]:
                    yield name, "".join(re.findall(r"^ARG VERSION=(.*)$", _read(archive, name), re.MULTILINE))


def check_wheel(root: Path, wheel: Path) -> None:
    """Every file of the packages that is no Python code (types, objectives, tasks), and the man pages, are in it."""
    inside = set(zipfile.ZipFile(wheel).namelist())
    for package in PACKAGES:
        source = next(root.glob(f"*/{package}"))
        data = (path for path in source.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
        if lost := sorted(
            str(path.relative_to(source.parent)) for path in data if str(path.relative_to(source.parent)) not in inside
        ):
            raise ReleaseError(f"the wheel lacks {', '.join(lost)}; add them to [tool.setuptools.package-data]")
    pages = [path.name for path in (root / "operator" / "man").glob("*.1")]
    if lost := sorted(page for page in pages if not any(name.endswith(f"/man/man1/{page}") for name in inside)):
        raise ReleaseError(f"the wheel lacks {', '.join(lost)}; add them to [tool.setuptools.data-files]")


def check_chart(package: Path) -> None:
    """The chart package brings the CustomResourceDefinition."""
    with tarfile.open(package) as chart:
        if not any(name.endswith("dynalign.io_alignmentruns.yaml") for name in chart.getnames()):
            raise ReleaseError(f"{package.name} has no CustomResourceDefinition")


def _metadata_version(text: str) -> str:
    return str(email.parser.Parser().parsestr(text)["Version"])


def _read(archive: tarfile.TarFile, name: str) -> str:
    file = archive.extractfile(name)
    return "" if file is None else file.read().decode()
