"""One training run on several processes, as torchrun starts them. In a single process every function does nothing.

    torchrun --nproc-per-node 4 program.py        # whose main runs inside `with join():`

Every process holds all examples and takes its part of each batch; gradients are added up, so all processes hold the
same weights at every step, and the result is that of a single process up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist


@contextmanager
def join() -> Iterator[torch.device]:
    """Join the processes torchrun started, for as long as the context lasts; by itself where it started none.

    Yields the device of this process: the GPU of its number on this machine, or else the CPU.
    """
    cuda = torch.cuda.is_available()
    if not dist.is_available() or not dist.is_torchelastic_launched():
        yield torch.device("cuda" if cuda else "cpu")
        return
    device = torch.device("cuda", dist.get_node_local_rank()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if _joined() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _joined() else 1


def add_up(tensor: Tensor) -> Tensor:
    """The sum of this tensor over all processes, in place; the same bits in each of them."""
    if _joined():
        dist.all_reduce(tensor)
    return tensor


def any_of(here: bool, device: torch.device) -> bool:
    """Whether it is so in any process."""
    if not _joined():
        return here
    return bool(add_up(torch.tensor(float(here), device=device)) > 0)


def agreed(value: float, device: torch.device) -> float:
    """What process 0 says; clocks differ, and all must stop at the same step."""
    if not _joined():
        return value
    said = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(said, 0)
    return float(said)


def gathered(values: NDArray[np.float64], total: int, device: torch.device) -> NDArray[np.float64]:
    """(total,) values of which process r holds those at r, r + world_size, …"""
    whole = torch.zeros(total, dtype=torch.float64, device=device)
    whole[rank() :: world_size()] = torch.from_numpy(values).to(device)
    everything: NDArray[np.float64] = add_up(whole).cpu().numpy()
    return everything


def all_same(thing: Any) -> bool:
    """Whether every process holds an equal `thing`."""
    if not _joined():
        return True
    things: list[Any] = [None] * world_size()
    dist.all_gather_object(things, thing)
    return all(other == thing for other in things)
