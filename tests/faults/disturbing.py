"""Messages, services and people that come too often, too late, at once, or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from backend.tables import Lane, RoundStatus
from tests.faults import verdict
from tests.faults.cluster import LEASE_SECONDS, ROOT, Cluster
from tests.faults.moments import N_ANNOTATIONS, ViolatedError, at_step, fault, kill_runner, new_round, under_way
from tests.faults.stacks import NotHereError


@fault("messages doubled and reordered")
def messages_doubled(cluster: Cluster, rng: Generator) -> None:
    number = new_round(cluster, rng)
    under_way(cluster, number, RoundStatus.opened)
    round_id = cluster.rounds()[number].id
    messages: list[tuple[Any, ...]] = [("tick",), ("reconcile",), ("pull", 1), ("open_if_due", 1)]
    messages += [("run_round", round_id), ("score_shards", round_id), ("run_round", max(1, round_id - 1))]
    for at in rng.permutation(len(messages) * 4):
        cluster.nudge(messages[at % len(messages)], Lane(rng.choice(list(Lane))))


@fault("more processes claim the round")
def claimed_twice(cluster: Cluster, rng: Generator) -> None:
    """As if every message that starts a round's process had come four times."""
    number = new_round(cluster, rng)
    under_way(cluster, number, RoundStatus.opened)
    command = [sys.executable, "-m", "backend.cli", "run-round", str(cluster.latest().id)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    others = [subprocess.Popen(command, cwd=ROOT, env=cluster.environment, **quiet) for _ in range(3)]  # type: ignore[call-overload]
    for other in others:
        other.wait(120)


@fault("beats killed and doubled")
def beats(cluster: Cluster, rng: Generator) -> None:
    new_round(cluster, rng)
    cluster.kill("beat-1")
    cluster.restart("beat-2")
    time.sleep(rng.uniform(0, 3))
    cluster.restart_dead()


# ----------------------------------------------------------------------------------------- the services underneath


@fault("broker's messages dropped")
def messages_dropped(cluster: Cluster, rng: Generator) -> None:
    new_round(cluster, rng)
    for _ in range(20):
        cluster.stack.broker.drop()
        time.sleep(0.15)


@fault("broker restarted")
def broker_restarted(cluster: Cluster, rng: Generator) -> None:
    new_round(cluster, rng)
    time.sleep(rng.uniform(0, 4))
    cluster.stack.broker.restart(2.0)


@fault("database locked")
def database_locked(cluster: Cluster, rng: Generator) -> None:
    new_round(cluster, rng)
    time.sleep(rng.uniform(0, 4))
    cluster.stack.database.lock(LEASE_SECONDS * 2)


@fault("database connections cut")
def connections_cut(cluster: Cluster, rng: Generator) -> None:
    new_round(cluster, rng)
    for _ in range(6):
        time.sleep(rng.uniform(0.2, 1.5))
        cluster.stack.database.cut()


@fault("Label Studio down")
def label_studio_down(cluster: Cluster, rng: Generator) -> None:
    new_round(cluster, rng)
    time.sleep(rng.uniform(0, 4))
    cluster.server.down = True
    time.sleep(6)
    cluster.server.down = False


@fault("Label Studio's answers lost")
def answers_lost(cluster: Cluster, rng: Generator) -> None:
    """It does what it is asked and says nothing: predictions are stored that nobody knows of."""
    deaf = threading.Event()

    def go_mute() -> None:
        cluster.server.mute = True
        deaf.set()

    cluster.server.at("before", "import/predictions", go_mute)
    new_round(cluster, rng)
    cluster.wait_for("a publication", deaf.is_set)
    time.sleep(1)
    cluster.server.mute = False


@fault("disk full")
def disk_full(cluster: Cluster, rng: Generator) -> None:
    """All of the disk is taken, and then all but some kilobytes, so that a write fails half way."""
    folder = cluster.settings.data_dir
    if not folder.is_mount():
        raise NotHereError("the data folder has no file system of its own (mounting one needs root)")
    ballast = folder / "ballast"
    number = new_round(cluster, rng)
    under_way(cluster, number, RoundStatus.selected)
    _fill(ballast, leave_bytes=int(rng.choice([0, 300_000, 2_500_000])))
    time.sleep(8)
    ballast.unlink()


def _fill(path: Path, leave_bytes: int) -> None:
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(path.parent).free - leave_bytes))


# ------------------------------------------------------------------------------------------------------ what is heard


@fault("webhooks lost")
def webhooks_lost(cluster: Cluster, rng: Generator) -> None:
    cluster.annotate(N_ANNOTATIONS, rng, tell=False)
    cluster.wait_for("a round", lambda: cluster.rounds()[-1].finished_at is None, 60)


@fault("webhooks doubled, late and out of order")
def webhooks_out_of_order(cluster: Cluster, rng: Generator) -> None:
    first = cluster.annotate(N_ANNOTATIONS, rng, tell=False)
    second = cluster.annotate(N_ANNOTATIONS, rng, tell=False)
    gone = int(rng.choice(sorted(cluster.server.annotations())))
    late = cluster.server.event("ANNOTATION_UPDATED", gone)
    events = [*first, *second, late, cluster.server.delete_annotation(gone)]
    for at in np.concatenate([rng.permutation(len(events)), rng.permutation(len(events))]):
        cluster.tell(events[at])


@fault("API killed while webhooks come")
def api_killed(cluster: Cluster, rng: Generator) -> None:
    def people() -> None:
        cluster.annotate(N_ANNOTATIONS, rng)

    thread = threading.Thread(target=people)
    thread.start()
    time.sleep(0.02)
    cluster.restart("api")
    thread.join()


# ------------------------------------------------------------------------------------------------- people intervene


@fault("round cancelled: training")
def cancelled_training(cluster: Cluster, rng: Generator) -> None:
    at_step(cluster, rng, RoundStatus.selected, lambda c: c.cancel(c.latest().id), step="train")
    new_round(cluster, rng)


def _cancelled_at(cluster: Cluster, rng: Generator, moment: str, request: str) -> None:
    """What is served must be what was published, also when a publication was called off half way."""
    hit = threading.Event()

    def cancel() -> None:
        cluster.cancel(cluster.latest().id)
        hit.set()

    cluster.server.at(moment, request, cancel)
    try:
        new_round(cluster, rng)
        cluster.wait_for(f"{moment} {request}", hit.is_set)
    finally:
        cluster.server.forget_traps()
    cluster.quiet()
    if found := verdict.violations(cluster):
        raise ViolatedError("; ".join(found))
    new_round(cluster, rng)


@fault("round cancelled: predictions stored, not switched over")
def cancelled_before_switch(cluster: Cluster, rng: Generator) -> None:
    _cancelled_at(cluster, rng, "after", "import/predictions")


@fault("round cancelled: switched over")
def cancelled_after_switch(cluster: Cluster, rng: Generator) -> None:
    _cancelled_at(cluster, rng, "after", "PATCH /api/projects")


@fault("rolled back: training")
def rolled_back(cluster: Cluster, rng: Generator) -> None:
    """The round that trains is cancelled, and the round that brings the old version back loses its worker."""
    versions = verdict.versions(cluster.store)
    old = [one.number for one in versions if not one.serving]
    if not old:
        raise NotHereError("there is no second model version yet")
    number = new_round(cluster, rng)
    under_way(cluster, number, RoundStatus.selected, "train")
    cluster.roll_back(old[0])
    time.sleep(rng.uniform(0, 4))
    kill_runner(cluster)
    cluster.restart_dead()
    cluster.quiet()
    if [one.number for one in verdict.versions(cluster.store) if one.serving] != [old[0]]:
        raise ViolatedError(f"version {old[0]} does not serve")
