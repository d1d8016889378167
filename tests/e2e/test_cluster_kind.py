"""A scripted run on kind, beside the cluster that the other tests use: chart, operator, Jobs, shared volumes."""

from collections.abc import Iterator
from typing import Any

import pytest

from dynalign_contract.stages import Stage
from lab.cluster import bring_up, give_image
from support.cluster_runs import NO_GPU, Site, open_site
from support.kind_cluster import on_kind

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]

SPEC: dict[str, Any] = {
    "model": {"uri": "bundled://smollm2-135m-instruct"},
    "iterations": 2,
    "storage": {"size": "10Mi"},
    "rollout": "Separate",
    "stages": {str(stage): NO_GPU for stage in Stage},
}


@pytest.fixture(scope="module")
def kind_site() -> Iterator[Site]:
    with on_kind():
        cluster = bring_up()
        with open_site(cluster, give_image("operator"), give_image("scripted-stage")) as opened:
            yield opened


def test_a_run_of_two_iterations_completes(kind_site: Site) -> None:
    run = kind_site.apply("scripted", SPEC)
    run.until_completed()
    run.until_reported()
    assert run.stages() == set(Stage) - {Stage.ROLLOUT}
    assert [i["index"] for i in run.status["iterations"]] == [0, 1]
    assert "kind" in kind_site.cluster.kubeconfig
