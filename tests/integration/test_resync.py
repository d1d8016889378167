"""What the watches have missed is found at a real API server, counted, and put right. Here no watch runs at all."""

from collections.abc import Iterator

import pytest

from dynalign_operator.clusters.base import RunKey
from dynalign_operator.clusters.kubernetes.resync import STALLED_WATCH_ROUNDS, Resync
from dynalign_operator.clusters.kubernetes.store import Kind, Store
from lab.api_server import ApiServer, start_api_server
from support.player import Player, run_object, scenario

pytestmark = pytest.mark.cluster

RUN = run_object(model={"uri": "bundled://smollm2-135m-instruct"})
KEY = RunKey("default", "r")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with start_api_server(tmp_path_factory.mktemp("api-server") / "s") as started:
        yield started


def test_a_watch_that_stopped_delivering_is_noticed_and_its_changes_are_caught_up(server: ApiServer) -> None:
    async def story(player: Player) -> None:
        store, told = Store(), list[RunKey]()
        resync = Resync(player.api, store, (), told.append, lambda _: None)
        resync.rounds = 1  # the first round, in which nothing counts, is over

        await player.create(RUN)
        assert await resync._compare(Kind.RUN, 0.0) == 1
        assert store.get(Kind.RUN, KEY) is not None
        assert await resync._compare(Kind.RUN, 0.0) == 0
        for round_number in range(STALLED_WATCH_ROUNDS):
            assert resync.liveness_problem is None
            server.kubectl("label", "ar", "r", f"round={round_number}", "--overwrite")
            assert await resync._compare(Kind.RUN, 0.0) == 1
        assert "the watch of AlignmentRun" in (resync.liveness_problem or "")

        server.kubectl("delete", "ar", "r")
        assert await resync._compare(Kind.RUN, 0.0) == 1
        assert store.get(Kind.RUN, KEY) is None
        assert await resync._compare(Kind.RUN, 0.0) == 0
        assert resync.liveness_problem is None
        assert told == [KEY] * (1 + STALLED_WATCH_ROUNDS + 1)

    scenario(server, story)
