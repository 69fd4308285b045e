"""Disconnecting a project: out of Label Studio goes what connecting put there; every row of ours stays."""

from __future__ import annotations

import logging
from contextlib import suppress

from backend import rounds, wiring
from backend.context import Context
from backend.errors import NotConnected, RoundFinished
from backend.store import projects
from backend.store import rounds as rows
from backend.tables import FINISHED, Project
from backend.wiring.finding import Wired

log = logging.getLogger(__name__)


def disconnect(ctx: Context, project_id: int) -> int | None:
    """Take a project out of our hands; returns the id of the round this cancelled. NotConnected if it never was.

    Once more does no harm, and finishes what was cut off.
    """
    ctx.settings.require("public_url", "webhook_secret")
    with ctx.store.read() as s:
        project = projects.known(s, project_id)
    if project is None:
        raise NotConnected(f"project {project_id} was never connected, so there is nothing to take away")
    # Our own side first: from here on nothing of ours touches the project, whatever Label Studio answers.
    if project.disconnected_at is None:
        with ctx.store.begin() as s:
            projects.change(s, project_id, disconnected_at=ctx.now())
    cancelled = _cancel_round(ctx, project)
    wiring.remove(Wired(ctx, project))
    log.warning("project %s is disconnected; its rows and model versions stay", project_id)
    return cancelled


def _cancel_round(ctx: Context, project: Project) -> int | None:
    with ctx.store.read() as s:
        last = rows.latest(s, project.id)
    if last is None or last.status in FINISHED:
        return None
    with suppress(RoundFinished):  # it may end this moment
        rounds.cancel(ctx, last.id, "cancelled: the project was disconnected")
        return last.id
    return None
