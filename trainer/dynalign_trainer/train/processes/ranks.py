"""The processes that train together: talking to each other with torch.distributed."""

from typing import TypeVar

T = TypeVar("T")


def gather(value: T) -> list[T]:
    """The value of every rank, in their order; a collective call."""
    import torch.distributed as dist

    values: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Return once every rank is here."""
    import torch.distributed as dist

    dist.barrier()
