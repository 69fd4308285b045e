"""Processes that die at a bad moment, and processes that sleep through one."""

from __future__ import annotations

import signal
import threading
import time

from numpy.random import Generator

from backend.tables import RoundStatus
from tests.faults.cluster import LEASE_SECONDS, WORKERS, Cluster, signal_all
from tests.faults.moments import N_ANNOTATIONS, at_step, fault, freeze_runner, kill_child, kill_runner, new_round


@fault("worker killed: selecting")
def killed_selecting(cluster: Cluster, rng: Generator) -> None:
    at_step(cluster, rng, RoundStatus.opened, kill_runner)


@fault("worker killed: training")
def killed_training(cluster: Cluster, rng: Generator) -> None:
    at_step(cluster, rng, RoundStatus.selected, kill_runner, step="train", after=rng.uniform(0, 1))


@fault("worker killed: evaluating")
def killed_evaluating(cluster: Cluster, rng: Generator) -> None:
    at_step(cluster, rng, RoundStatus.trained, kill_runner)


@fault("worker killed: promoting")
def killed_promoting(cluster: Cluster, rng: Generator) -> None:
    at_step(cluster, rng, RoundStatus.evaluated, kill_runner)


@fault("worker killed: rescoring")
def killed_rescoring(cluster: Cluster, rng: Generator) -> None:
    at_step(cluster, rng, RoundStatus.decided, kill_runner, after=rng.uniform(0, 0.5))


def _killed_at(cluster: Cluster, rng: Generator, moment: str, request: str) -> None:
    """Kill inside a request that a publication makes; the answer is never read."""
    hit = threading.Event()

    def kill() -> None:
        cluster.kill(cluster.runner())
        hit.set()

    cluster.server.at(moment, request, kill)
    try:
        new_round(cluster, rng)
        cluster.wait_for(f"{request}", hit.is_set)
    finally:
        cluster.server.forget_traps()
        cluster.restart_dead()


@fault("worker killed: before the predictions are stored")
def killed_before_import(cluster: Cluster, rng: Generator) -> None:
    _killed_at(cluster, rng, "before", "import/predictions")


@fault("worker killed: after the predictions are stored")
def killed_after_import(cluster: Cluster, rng: Generator) -> None:
    _killed_at(cluster, rng, "after", "import/predictions")


@fault("worker killed: after Label Studio is switched over")
def killed_after_switch(cluster: Cluster, rng: Generator) -> None:
    _killed_at(cluster, rng, "after", "PATCH /api/projects")


@fault("worker killed: after old predictions are deleted")
def killed_after_delete(cluster: Cluster, rng: Generator) -> None:
    _killed_at(cluster, rng, "after", "DELETE /api/projects")


@fault("worker killed: at a random time")
def killed_any_time(cluster: Cluster, rng: Generator) -> None:
    new_round(cluster, rng)
    time.sleep(rng.uniform(0, 8))
    cluster.restart(str(rng.choice(WORKERS)))


@fault("both workers killed: at a random time")
def both_killed(cluster: Cluster, rng: Generator) -> None:
    new_round(cluster, rng)
    time.sleep(rng.uniform(0, 8))
    for name in WORKERS:
        cluster.kill(name)
    cluster.restart_dead()


@fault("only the round's process killed")
def child_killed(cluster: Cluster, rng: Generator) -> None:
    at_step(cluster, rng, RoundStatus.selected, kill_child, after=rng.uniform(0, 2))


@fault("everything killed")
def all_killed(cluster: Cluster, rng: Generator) -> None:
    new_round(cluster, rng)
    time.sleep(rng.uniform(0, 6))
    for name in list(cluster.children):
        cluster.kill(name)
    cluster.annotate(N_ANNOTATIONS, rng)  # nobody hears of these
    cluster.restart_dead()


# ------------------------------------------------------------------------------------------------------------ frozen


@fault("worker frozen past its lease")
def frozen(cluster: Cluster, rng: Generator) -> None:
    stopped: list[int] = []
    at_step(cluster, rng, RoundStatus.selected, lambda c: stopped.extend(freeze_runner(c)), step="train")
    time.sleep(LEASE_SECONDS * 2)
    signal_all(stopped, signal.SIGCONT)


def _frozen_at(cluster: Cluster, rng: Generator, moment: str, request: str) -> None:
    """The one that wakes up must not publish over the one that took its place."""
    stopped: list[int] = []
    cluster.server.at(moment, request, lambda: stopped.extend(freeze_runner(cluster)))
    number = new_round(cluster, rng)
    try:
        cluster.wait_for(f"{moment} {request}", lambda: stopped)
        cluster.wait_for("another worker to publish", lambda: cluster.rounds()[number].status is RoundStatus.done)
    finally:
        cluster.server.forget_traps()
        signal_all(stopped, signal.SIGCONT)
    time.sleep(2)


@fault("worker frozen: predictions stored, not switched over")
def frozen_before_switch(cluster: Cluster, rng: Generator) -> None:
    _frozen_at(cluster, rng, "after", "import/predictions")


@fault("worker frozen: about to switch over")
def frozen_at_switch(cluster: Cluster, rng: Generator) -> None:
    _frozen_at(cluster, rng, "before", "PATCH /api/projects")


@fault("worker frozen: switched over")
def frozen_after_switch(cluster: Cluster, rng: Generator) -> None:
    _frozen_at(cluster, rng, "after", "PATCH /api/projects")
