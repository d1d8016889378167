"""Bandwidth between training nodes: who exchanges with whom, and what is said of a slow link."""

import multiprocessing
import os
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign_trainer.train.job import Link
from dynalign_trainer.train.processes.links import explain_slow_links, measure_links, plan_rounds


@given(st.integers(1, 64))
def test_every_neighbour_is_met_once_and_nobody_is_in_two_pairs_at_a_time(nodes: int) -> None:
    rounds = plan_rounds(nodes)
    met = sorted(tuple(sorted(pair)) for pairs in rounds for pair in pairs)
    ring = {tuple(sorted((node, (node + 1) % nodes))) for node in range(nodes)} if nodes > 1 else set()
    assert met == sorted(ring)
    assert len(rounds) <= 3
    for pairs in rounds:
        busy = [node for pair in pairs for node in pair]
        assert len(busy) == len(set(busy))


def links(*speeds: float) -> list[Link]:
    return [Link(nodes=(i, (i + 1) % len(speeds)), gigabytes_per_second=speed) for i, speed in enumerate(speeds)]


def test_a_link_is_slow_beside_the_others() -> None:
    told = explain_slow_links(links(20.0, 22.0, 0.4, 21.0))
    assert told is not None
    assert "2 and 3 0.4 GB/s" in told
    assert "(20 GB/s in the median)" in told or "(21 GB/s in the median)" in told
    assert "spec.stages.train.env" in told
    assert explain_slow_links(links(20.0, 18.0, 15.0)) is None
    assert explain_slow_links(links(20.0, 0.1)) is None, "of two links neither says what is usual"
    assert explain_slow_links([]) is None


def _rank(rank: int, world: int, local: int, port: int, queue: Any) -> None:
    import torch.distributed as dist

    os.environ |= {"RANK": str(rank), "LOCAL_WORLD_SIZE": str(local)}
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    queue.put((rank, measure_links(world // local)))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "local"), [(3, 1), (2, 2)])
def test_processes_of_several_nodes_measure_their_links(nodes: int, local: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    world = nodes * local
    processes = [context.Process(target=_rank, args=(rank, world, local, port, queue)) for rank in range(world)]
    for process in processes:
        process.start()
    found = dict(queue.get(timeout=300) for _ in processes)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * world
    assert all(found[rank] == found[0] for rank in range(world)), "every rank knows all links"
    pairs = sorted(pair for pairs in plan_rounds(nodes) for pair in pairs)
    assert sorted(link.nodes for link in found[0]) == pairs
    assert all(link.gigabytes_per_second > 0.01 for link in found[0])
