"""The real cluster and its images, made once for all tests that run side by side."""

from collections.abc import Iterator

import pytest

from lab.cluster import ROOT, Cluster, Image, bring_up, give_image
from lab.cluster_reads import list_nodes
from support.cluster_runs import GPU, HAS_GPUS, Site, open_site


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """Your KUBECONFIG's, kind's, or the native node; with this tree's CustomResourceDefinition."""
    found = bring_up()
    if HAS_GPUS and not any(GPU in node["status"]["allocatable"] for node in list_nodes(found)):
        pytest.fail(f"DYNALIGN_TEST_GPUS=yes, but no node of the cluster offers {GPU}", pytrace=False)
    crd = ROOT / "crds" / "dynalign.io_alignmentruns.yaml"
    found.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(crd))
    found.kubectl("wait", "crd/alignmentruns.dynalign.io", "--for=condition=Established", "--timeout=60s")
    return found


@pytest.fixture(scope="session")
def operator_image(cluster: Cluster) -> Image:
    return give_image("operator")


@pytest.fixture(scope="session")
def trainer_image(cluster: Cluster) -> Image:
    return give_image("trainer")


@pytest.fixture(scope="module")
def site(cluster: Cluster, operator_image: Image, trainer_image: Image) -> Iterator[Site]:
    """A namespace for the tests of one file, with an operator that runs the real stages."""
    with open_site(cluster, operator_image, trainer_image) as opened:
        yield opened
