"""The real cluster and its images, made once for all tests that run side by side."""

import os
from collections.abc import Iterator, Mapping

import pytest
from filelock import FileLock

from benchmarks.cluster import CACHE, ROOT, Cluster, Image, bring_up, build_and_load
from support.cluster_runs import Site, open_site


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """Your KUBECONFIG's, kind's, or the native node; with this tree's CustomResourceDefinition."""
    found = bring_up()
    crd = ROOT / "crds" / "dynalign.io_alignmentruns.yaml"
    found.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(crd))
    found.kubectl("wait", "crd/alignmentruns.dynalign.io", "--for=condition=Established", "--timeout=60s")
    return found


@pytest.fixture(scope="session")
def operator_image(cluster: Cluster) -> Image:
    return _given("DYNALIGN_TEST_OPERATOR_IMAGE") or _built("operator", {})


@pytest.fixture(scope="session")
def trainer_image(cluster: Cluster) -> Image:
    return _given("DYNALIGN_TEST_TRAINER_IMAGE") or _built("trainer", {"FLAVOUR": "cpu"})


def _given(variable: str) -> Image | None:
    """REPOSITORY:TAG of an image that the cluster can pull or has."""
    repository, _, tag = os.environ.get(variable, "").rpartition(":")
    return Image(repository, tag, is_loaded=False) if repository else None


def _built(name: str, arguments: Mapping[str, str]) -> Image:
    """This tree's image, given to the cluster."""
    with FileLock(CACHE / f"image-{name}.lock"):
        return build_and_load(f"dynalign-{name}", ROOT / "images" / name / "Dockerfile", ROOT, arguments)


@pytest.fixture(scope="module")
def site(cluster: Cluster, operator_image: Image, trainer_image: Image) -> Iterator[Site]:
    """A namespace for the tests of one file, with an operator that runs the real stages."""
    with open_site(cluster, operator_image, trainer_image) as opened:
        yield opened
