"""ENTRY POINT: Celery tasks. Each says "look", then the journeys look in the database what there is to do."""

import functools
import importlib.metadata
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from celery import Celery, signals

from backend import annotations, context, devices, effort, logs, metrics, retention, rounds
from backend.errors import DeviceBusy, Interrupted, StoreUnreachable, WardroundError
from backend.settings import load
from backend.store import projects, workers
from backend.store import rounds as round_rows
from backend.tables import Lane

log = logging.getLogger(__name__)

app = Celery("wardround")
app.add_defaults(lambda: context.celery_config(load()))

# Rounds that one worker works on at a time, by lane. A message that finds the lane full is dropped, not kept waiting:
# the thread stays free for others, and whoever leaves the lane looks in the database for who waits.
ROUNDS_AT_ONCE = {Lane.label_studio: 1, Lane.training: 1, Lane.scoring: 1}

_children: dict[int, subprocess.Popen[bytes]] = {}  # by process id
_at_work: Counter[Lane] = Counter()
_working: set[tuple[str, int]] = set()
_guard = threading.Lock()
_stopping = threading.Event()


@functools.cache
def _ctx() -> context.Context:
    return context.build(load())


def threads_for(lanes: list[Lane]) -> int:
    """Threads of a worker: one a round it may work on, and two for what must never wait behind rounds."""
    return sum(ROUNDS_AT_ONCE[lane] for lane in lanes) + (2 if Lane.label_studio in lanes else 0)


# ------------------------------------------------------------------------------------------------------ rounds


@app.task(name="wardround.run_round")
def run_round(round_id: int) -> None:
    """Take the round through the steps of its present lane."""
    with _ctx().store.read() as s:
        lane = rounds.lane_of(round_rows.get(s, round_id))
    if lane is None:
        return
    with _place(lane, "run", round_id) as free:
        if not free:
            return
        if lane is Lane.label_studio:
            _run_here(round_id, lane)
        elif not _run_child("run-round", round_id, lane):
            return  # whoever holds the device looks for who waits when it leaves, and so does each tick
    rounds.resume_unclaimed(_ctx())


@app.task(name="wardround.score_shards")
def score_shards(round_id: int) -> None:
    """Help with a rescoring that another worker began."""
    with _place(Lane.scoring, "score", round_id) as free:
        if not free:
            return
        _run_child("score-shards", round_id, Lane.scoring)
    rounds.resume_unclaimed(_ctx(), Lane.scoring)


@contextmanager
def _place(lane: Lane, work: str, round_id: int) -> Iterator[bool]:
    """A place in the lane; False when there is none, when this is being done already, or when the worker stops."""
    with _guard:
        # By lane: a process that ends its lane calls for the next one before it is gone.
        key = (f"{work} in {lane}", round_id)
        free = not _stopping.is_set() and _at_work[lane] < ROUNDS_AT_ONCE[lane] and key not in _working
        if free:
            _at_work[lane] += 1
            _working.add(key)
    try:
        yield free
    finally:
        if free:
            with _guard:
                _at_work[lane] -= 1
                _working.discard(key)


def _run_here(round_id: int, lane: Lane) -> None:
    """Steps that only talk to Label Studio need no process of their own."""
    with suppress(Interrupted):
        try:
            rounds.run(_ctx(), round_id, _stopping, lane)
        except WardroundError as error:
            log.warning("round id %s stopped: %s", round_id, error)  # its row says so as well


def _run_child(command: str, round_id: int, lane: Lane) -> bool:
    """Supervise a fresh process: it may use torch and the GPU as it likes, and its end frees all of it.

    False when none was started: the device is busy, or the worker stops.
    """
    settings = _ctx().settings
    with ExitStack() as stack:
        try:
            wanted = devices.held(settings.data_dir / "locks", settings.device)
            lock = stack.enter_context(wanted) if lane is Lane.training else None
        except DeviceBusy as error:
            log.info("round id %s: %s", round_id, error)
            return False
        arguments = [command, str(round_id), "--parent", str(os.getpid())]
        full = [sys.executable, "-m", "backend.cli", *arguments, *(["--lane", lane] if command == "run-round" else [])]
        with _guard:
            if _stopping.is_set():
                return False
            child = subprocess.Popen(full, pass_fds=[] if lock is None else [lock])
            _children[child.pid] = child
        try:
            if _stopping.is_set():
                child.terminate()  # told to stop since, and too late for the list that was gone through
            log.info("%s %s ran in process %s, exit status %s", command, round_id, child.pid, child.wait())
        finally:
            del _children[child.pid]
    return True


# ------------------------------------------------------------------------------------------ looking after things


@app.task(name="wardround.open_if_due")
def open_if_due(project_id: int) -> None:
    """After news of a project: open a round when one is due."""
    rounds.open_if_due(_ctx(), project_id)


@app.task(name="wardround.tick")
def tick() -> None:
    """Ask the database alone what is due or stalled; cheap, and often."""
    ctx = _ctx()
    with ctx.store.read() as s:
        ids = [project.id for project in projects.every(s)]
    for project_id in ids:
        with _one_of_many(project_id, "could not be looked at"):
            rounds.open_if_due(ctx, project_id)
    rounds.resume_unclaimed(ctx)


@app.task(name="wardround.reconcile")
def reconcile() -> None:
    """Have every project pulled, each by a message of its own: a slow one must not hold up the others."""
    with _ctx().store.read() as s:
        ids = [project.id for project in projects.every(s)]
    for project_id in ids:
        _ctx().enqueue("pull", project_id)


@app.task(name="wardround.pull")
def pull(project_id: int) -> None:
    """Find what webhooks lost in one project: annotations, tasks, a due round."""
    with _once("pull", project_id) as free:
        if not free:
            return
        with _one_of_many(project_id, "could not be reconciled"):
            with _ctx().store.read() as s:
                project = projects.get(s, project_id)
            log.debug("project %s: %s", project_id, annotations.reconcile(_ctx(), project))
            rounds.repair(_ctx(), project_id)
            rounds.open_if_due(_ctx(), project_id)
            rounds.watch_served(_ctx(), project_id)
        with _one_of_many(project_id, "has annotations whose effort could not be measured"):
            effort.measure(_ctx(), project_id)


@app.task(name="wardround.forget_versions")
def forget_versions(project_id: int) -> None:
    """Delete from Label Studio a piece of what is published no more; the next piece waits its turn."""
    with _once("forget", project_id) as free, _one_of_many(project_id, "still has old predictions in Label Studio"):
        if free and rounds.forget_some(_ctx(), project_id):
            _ctx().enqueue("forget_versions", project_id)


@app.task(name="wardround.prune")
def prune() -> None:
    """Keep disk, database and Label Studio within their bounds."""
    with _ctx().store.read() as s:
        ids = [project.id for project in projects.every(s)]
    for project_id in ids:
        _ctx().enqueue("forget_versions", project_id)
    try:
        log.info("pruned: %s", retention.prune(_ctx()))
    except StoreUnreachable as error:  # this machine's own room is free by then; the rest is freed in an hour
        log.warning("not all was pruned: %s", error)


@contextmanager
def _once(work: str, project_id: int) -> Iterator[bool]:
    """False when this worker is at it already: a slow project must not fill the threads."""
    with _guard:
        free = (work, project_id) not in _working
        _working.add((work, project_id))
    try:
        yield free
    finally:
        if free:
            with _guard:
                _working.discard((work, project_id))


@contextmanager
def _one_of_many(project_id: int, what: str) -> Iterator[None]:
    """One project must not stop the others."""
    try:
        yield
    except WardroundError as error:
        log.error("project %s %s: %s", project_id, what, error)
    except Exception:
        log.exception("project %s %s", project_id, what)


# --------------------------------------------------------------------------------------------- the process itself


def worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


@signals.worker_ready.connect
def _say_alive(**_: Any) -> None:
    settings = _ctx().settings
    if settings.metrics_port:
        metrics.serve(settings.metrics_port, settings.api_host)
    threading.Thread(target=_keep_saying_alive, name="alive", daemon=True).start()


def _keep_saying_alive() -> None:
    ctx, started_at = _ctx(), datetime.now(UTC)
    version = importlib.metadata.version("wardround")
    while not _stopping.is_set():
        try:
            with ctx.store.begin() as s:
                workers.beat(
                    s, worker_name(), lanes=ctx.settings.lanes, device=ctx.settings.device, version=version,
                    started_at=started_at,
                )  # fmt: skip
                workers.forget_silent(s, 86_400)
        except Exception as error:  # noqa: BLE001 - the database may be away; being alive is said again
            log.warning("cannot say that this worker is alive: %s", type(error).__name__)
        _stopping.wait(ctx.settings.tick_seconds)


@signals.worker_shutting_down.connect
def _stop_children(**_: Any) -> None:
    """Have running rounds hand themselves back; the worker waits for their processes to end."""
    _stopping.set()
    for child in list(_children.values()):
        child.terminate()


@signals.worker_shutdown.connect
def _say_goodbye(**_: Any) -> None:
    with suppress(Exception), _ctx().store.begin() as s:
        workers.forget(s, worker_name())


@signals.setup_logging.connect
def _log_as_configured(**_: Any) -> None:
    logs.set_up(load())


_started_at: dict[str, float] = {}


@signals.task_prerun.connect
def _note_start(task_id: str = "", **_: Any) -> None:
    _started_at[task_id] = time.monotonic()


@signals.task_postrun.connect
def _note_end(task_id: str = "", task: Any = None, state: str = "", **_: Any) -> None:
    seconds = time.monotonic() - _started_at.pop(task_id, time.monotonic())
    metrics.observed_celery_task(task.name.removeprefix("wardround."), state.lower(), seconds)
