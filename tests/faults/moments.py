"""The list of faults, and how one finds the moment it is about: a round at a certain step, with a process at work."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from numpy.random import Generator

from backend.tables import RoundStatus
from tests.faults.cluster import Cluster, signal_all
from tests.faults.stacks import NotHereError

Fault = Callable[[Cluster, Generator], None]
FAULTS: dict[str, Fault] = {}
N_ANNOTATIONS = 4  # what opens a round


class ViolatedError(Exception):
    """An invariant did not hold before the fault was over."""


def fault(name: str) -> Callable[[Fault], Fault]:
    def register(function: Fault) -> Fault:
        FAULTS[name] = function
        return function

    return register


def new_round(cluster: Cluster, rng: Generator) -> int:
    """Have people answer enough for a round; returns the number it will have."""
    number = cluster.latest_number() + 1
    cluster.annotate(N_ANNOTATIONS, rng)
    return number


def under_way(cluster: Cluster, number: int, status: RoundStatus, step: str = "", after: float = 0.0) -> bool:
    """Wait until a process runs the step after `status` (and reports `step`); False when it went by unseen."""

    def look() -> str:
        if cluster.latest_number() < number:
            return ""
        row = cluster.latest()
        if row.number > number or row.status in (RoundStatus.done, RoundStatus.failed):
            return "missed"
        progress = row.progress or {}
        if row.status is not status or row.claim is None or (step and progress.get("step") != step):
            return "missed" if list(RoundStatus).index(row.status) > list(RoundStatus).index(status) else ""
        return "there"

    seen = cluster.wait_for(f"round {number} to be {status} and at work", look, every=0.002) == "there"
    if seen and after:
        time.sleep(after)
    return seen


def at_step(
    cluster: Cluster,
    rng: Generator,
    status: RoundStatus,
    act: Callable[[Cluster], None],
    step: str = "",
    after: float = 0.0,
) -> None:
    """Do `act` while the step after `status` runs. A step of milliseconds may need more rounds than one."""
    for _ in range(4):
        number = new_round(cluster, rng)
        if under_way(cluster, number, status, step, after):
            act(cluster)
            hit = cluster.rounds()[number].status in (status, RoundStatus.cancelled)
            cluster.restart_dead()
            if hit:
                return
        cluster.quiet()
    raise NotHereError(f"the step after {status} was too quick to be caught")


def kill_runner(cluster: Cluster) -> None:
    """`kill -9` the worker that runs the round."""
    cluster.kill(cluster.runner())


def kill_child(cluster: Cluster) -> None:
    """`kill -9` what the worker started, not the worker."""
    signal_all(cluster.family(cluster.runner())[1:], signal.SIGKILL)


def freeze_runner(cluster: Cluster) -> list[int]:
    """Stop the worker that runs the round, and all that it started, in the middle of whatever they do."""
    family = cluster.family(cluster.runner())
    signal_all(family, signal.SIGSTOP)
    return family
