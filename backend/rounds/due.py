"""JOURNEY 4: whether a round is due, decided by a pure function, and opened under the database's guard."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from backend.context import Context
from backend.errors import RoundRunning
from backend.settings import Settings
from backend.store import Session, annotations, projects, rounds
from backend.tables import FINISHED, Round, Trigger

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """What opens a round: so many new annotations, or any news after so long. `schedule` None: never by the clock."""

    annotations: int
    schedule: timedelta | None


def policy(settings: Settings) -> Policy:
    hours = settings.schedule_hours
    return Policy(settings.annotations_per_round, timedelta(hours=hours) if hours else None)


def due(now: datetime, last: Round | None, new_annotations: int, policy: Policy) -> Trigger | None:
    """Why a round is due now, or None. `last` is the project's latest round, whatever became of it."""
    if last is None:
        return Trigger.first
    if last.status not in FINISHED:
        return None
    if new_annotations >= policy.annotations:
        return Trigger.annotations
    if policy.schedule and new_annotations and now - last.opened_at >= policy.schedule:
        return Trigger.schedule
    return None


def open_if_due(ctx: Context, project_id: int) -> int | None:
    """Open a round when one is due and nudge a worker; returns the round's id, or None."""
    with ctx.store.read() as s:
        trigger = _trigger(ctx, s, project_id)
    if trigger is None:
        return None
    try:
        return open_now(ctx, project_id, trigger)
    except RoundRunning:
        return None  # another process saw the same and was faster


def open_now(ctx: Context, project_id: int, trigger: Trigger = Trigger.request) -> int:
    """Open a round and nudge a worker; returns its id. RoundRunning when one is unfinished, NotConnected."""
    with ctx.store.begin() as s:
        projects.get(s, project_id)
        last = rounds.latest(s, project_id)
        row = rounds.open_round(
            s, project_id, trigger=trigger, strategy=ctx.settings.strategy,
            seed=last.number + 1 if last else 0, now=ctx.now(),
        )  # fmt: skip
    log.info("opened round %s of project %s (%s)", row.number, project_id, trigger)
    ctx.enqueue("run_round", row.id)
    return row.id


def resume_unclaimed(ctx: Context) -> list[int]:
    """Nudge a worker for every unfinished round that nobody runs; returns their ids."""
    with ctx.store.read() as s:
        waiting = [row.id for row in rounds.unclaimed(s, ctx.now() - timedelta(seconds=ctx.settings.lease_seconds))]
    for round_id in waiting:
        ctx.enqueue("run_round", round_id)
    return waiting


def _trigger(ctx: Context, s: Session, project_id: int) -> Trigger | None:
    last = rounds.latest(s, project_id)
    if last is None and not projects.all_tasks(s, project_id):
        return None
    selected = rounds.latest_selected(s, project_id)
    news = annotations.count_new(s, project_id, selected)
    return due(ctx.now(), last, news, policy(ctx.settings))
