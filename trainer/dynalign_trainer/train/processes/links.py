"""Bandwidth between the nodes of a training, measured before its first step: one slow link makes every step slow."""

import os
import time
from collections.abc import Sequence
from statistics import median
from typing import Any, Final

from dynalign_trainer.runtime.machine import count_gpus
from dynalign_trainer.train.job import Link
from dynalign_trainer.train.processes.ranks import gather, wait_for_all

_BYTES: Final = 64 << 20
"""Sent in one exchange, in each direction."""
_EXCHANGES: Final = 4
_SLOW: Final = 0.5
"""Share of the median below which a link is told of."""
_COMPARABLE: Final = 3
"""Links from which on a median says what is usual."""

Pair = tuple[int, int]


def plan_rounds(nodes: int) -> list[list[Pair]]:
    """Neighbours in a ring, each pair once, in rounds in which no node occurs twice; none for a single node."""
    if nodes < 2:
        return []
    pairs = [(node, node + 1) for node in range(nodes - 1)]
    rounds = [pairs[::2], pairs[1::2]]
    if nodes > 2:
        closing = (nodes - 1, 0)
        if nodes % 2 == 0:
            rounds[1].append(closing)
        else:
            rounds.append([closing])
    return [found for found in rounds if found]


def measure_links(nodes: int) -> list[Link]:
    """GB a second in each direction between neighbouring nodes; a collective call, every rank gets all links.

    The first process of each node exchanges buffers with that of the next node; other pairs do so at the same time.
    """
    if nodes < 2:
        return []
    local, rank = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["RANK"])
    found: list[Link] = []
    for pairs in plan_rounds(nodes):
        wait_for_all()
        own = next((pair for pair in pairs if rank in (pair[0] * local, pair[1] * local)), None)
        if own is not None:
            first, second = own
            speed = _exchange((second if rank == first * local else first) * local)
            if rank == first * local:
                found.append(Link(nodes=own, gigabytes_per_second=round(speed, 3)))
    return [link for of_rank in gather(found) for link in of_rank]


def explain_slow_links(links: Sequence[Link]) -> str | None:
    """Which links are slower than half of the median, and what to look at; None where none is."""
    if len(links) < _COMPARABLE:
        return None
    usual = median(link.gigabytes_per_second for link in links)
    slow = [link for link in links if link.gigabytes_per_second < _SLOW * usual]
    if not slow:
        return None
    told = ", ".join(f"{a} and {b} {link.gigabytes_per_second:.2g} GB/s" for link in slow for a, b in [link.nodes])
    return (
        f"nodes of the training exchange data more slowly than the others ({usual:.2g} GB/s in the median): {told}. "
        "Every step waits for them: look at the network of these pods' nodes, at NCCL_SOCKET_IFNAME and NCCL_IB_HCA in "
        "spec.stages.train.env, and whether the pods lie in one rack (spec.stages.train.affinity)."
    )


def _exchange(peer: int) -> float:
    """GB a second in each direction, by `_EXCHANGES` exchanges with another rank after one that connects."""
    import torch

    device = torch.device("cuda", torch.cuda.current_device()) if count_gpus() else torch.device("cpu")
    sent, received = (torch.zeros(_BYTES // 4, dtype=torch.float32, device=device) for _ in range(2))
    _send_and_receive(sent, received, peer)
    started = time.monotonic()
    for _ in range(_EXCHANGES):
        _send_and_receive(sent, received, peer)
    return _EXCHANGES * _BYTES / max(time.monotonic() - started, 1e-9) / 1e9


def _send_and_receive(sent: Any, received: Any, peer: int) -> None:
    import torch
    import torch.distributed as dist

    operations = [dist.P2POp(dist.isend, sent, peer), dist.P2POp(dist.irecv, received, peer)]
    for work in dist.batch_isend_irecv(operations):
        work.wait()
    if sent.is_cuda:
        torch.cuda.synchronize()
