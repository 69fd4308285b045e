"""ENTRY POINT: Celery tasks. Each says "look", then the journeys look in the database what there is to do."""

import functools
import logging
import os
import subprocess
import sys
import threading
from typing import Any

from celery import Celery, signals

from backend import annotations, context, rounds
from backend.errors import WardroundError
from backend.settings import load
from backend.store import projects

log = logging.getLogger(__name__)

app = Celery("wardround")
app.add_defaults(lambda: context.celery_config(load()))

_children: dict[int, subprocess.Popen[bytes]] = {}  # by round
_starting = threading.Lock()
_stopping = threading.Event()


@functools.cache
def _ctx() -> context.Context:
    return context.build(load())


@app.task(name="wardround.run_round")
def run_round(round_id: int) -> None:
    """Supervise a fresh process: it may use torch and the GPU as it likes, and its end frees all of it."""
    command = [sys.executable, "-m", "backend.cli", "run-round", str(round_id), "--parent", str(os.getpid())]
    with _starting:
        # Told to stop: the database keeps the round. Told twice: the claim would turn the second process away.
        if _stopping.is_set() or round_id in _children:
            return
        child = _children[round_id] = subprocess.Popen(command)
    if _stopping.is_set():
        child.terminate()  # told to stop since, and too late for the list that was gone through
    try:
        log.info("round id %s ran in process %s, exit status %s", round_id, child.pid, child.wait())
    finally:
        del _children[round_id]


@app.task(name="wardround.open_if_due")
def open_if_due(project_id: int) -> None:
    """After news of a project: open a round when one is due."""
    rounds.open_if_due(_ctx(), project_id)


@app.task(name="wardround.reconcile")
def reconcile() -> None:
    """Find what messages and webhooks lost: annotations, due rounds, rounds that nobody runs."""
    ctx = _ctx()
    with ctx.store.read() as s:
        known = projects.every(s)
    for project in known:
        try:
            log.debug("project %s: %s", project.id, annotations.reconcile(ctx, project))
            rounds.open_if_due(ctx, project.id)
        except WardroundError as error:
            log.error("project %s could not be reconciled: %s", project.id, error)
        except Exception:  # one project must not stop the others, nor the rounds that wait below
            log.exception("project %s could not be reconciled", project.id)
    rounds.resume_unclaimed(ctx)


@signals.worker_shutting_down.connect
def _stop_children(**_: Any) -> None:
    """Have running rounds hand themselves back; the worker waits for their processes to end."""
    _stopping.set()
    for child in list(_children.values()):
        child.terminate()


@signals.setup_logging.connect
def _log_as_configured(**_: Any) -> None:
    context.set_up_logging(load())
