"""JOURNEY 4: whether a round is due, decided by a pure function, and opened under the database's guard."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from backend.context import Context
from backend.errors import RoundRunning
from backend.rounds.machine import follow, lane_of
from backend.settings import Settings
from backend.store import Session, annotations, projects, rounds, shards
from backend.store.annotations import News
from backend.tables import FINISHED, Lane, Project, Round, RoundStatus, Trigger

log = logging.getLogger(__name__)

# Annotations that never stop coming must not put a round off for ever.
_LONGEST_DEBOUNCES = 10
# A schedule that names no day to come, such as 30 February, has no past one worth looking for either.
_OLDEST_SLOT = timedelta(days=400)


@dataclass(frozen=True)
class Policy:
    """What opens a round by itself: so many new annotations once they pause, or any news at a slot of the schedule."""

    annotations: int
    debounce: timedelta = timedelta()
    failure_pause: timedelta = timedelta()


def policy(settings: Settings) -> Policy:
    return Policy(
        settings.annotations_per_round,
        timedelta(seconds=settings.debounce_seconds),
        timedelta(seconds=settings.failure_pause_seconds),
    )


def due(now: datetime, last: Round | None, news: News, slot: datetime | None, policy: Policy) -> Trigger | None:
    """Why a round is due now, or None.

    last: the project's latest round, whatever became of it. news: annotations that no round has dealt with. slot: the
    latest time up to now that the schedule names, None without one. A slot missed while nobody was awake opens one
    round, however many were missed.
    """
    if last is None:
        return Trigger.first
    if last.status not in FINISHED:
        return None
    if last.status is RoundStatus.failed and last.finished_at and now - last.finished_at < policy.failure_pause:
        return None
    if news.count >= policy.annotations and _has_settled(now, news, policy):
        return Trigger.annotations
    if slot and news.before_slot and last.opened_at < slot:
        return Trigger.schedule
    return None


def _has_settled(now: datetime, news: News, policy: Policy) -> bool:
    if news.newest_at is None or now - news.newest_at >= policy.debounce:
        return True
    return news.nth_at is not None and now - news.nth_at >= _LONGEST_DEBOUNCES * policy.debounce


def last_slot(expression: str, zone: str, since: datetime, now: datetime) -> datetime | None:
    """The latest time in (since, now] that a cron expression names in a time zone; None when there is none.

    A time that daylight saving skips comes right after the gap; one that it repeats comes once.
    """
    if not expression:
        return None
    # Backwards: the first time before a moment just behind now, however long ago `since` was.
    start = (now + timedelta(minutes=1)).astimezone(ZoneInfo(zone)).replace(second=0, microsecond=0)
    for local in CronSim(expression, start, reverse=True):
        found = local.astimezone(UTC)  # a time that comes twice a year compares equal to nothing in another zone
        if found <= now:
            return found if found > max(since, now - _OLDEST_SLOT) else None
    return None


def open_if_due(ctx: Context, project_id: int) -> int | None:
    """Open a round when one is due and nudge a worker; returns the round's id, or None."""
    with ctx.store.read() as s:
        trigger = _trigger(ctx, s, projects.get(s, project_id))
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
    follow(ctx, row.id)
    return row.id


def resume_unclaimed(ctx: Context, lane: Lane | None = None) -> list[int]:
    """Nudge workers for every unfinished round that nobody runs, those of one lane if given; returns their ids.

    A rescoring that is under way gets a nudge as well while it has shards that nobody scores.
    """
    with ctx.store.read() as s:
        waiting = [(row.id, lane_of(row)) for row in rounds.unclaimed(s)]
        shared = [row.id for row in rounds.in_status(s, RoundStatus.decided) if shards.count_free(s, row.id)]
    nudged = [(round_id, found) for round_id, found in waiting if found and lane in (None, found)]
    for round_id, found in nudged:
        ctx.enqueue("run_round", round_id, lane=found)
    for round_id in shared if lane in (None, Lane.scoring) else []:
        ctx.enqueue("score_shards", round_id, lane=Lane.scoring)
    return [round_id for round_id, _ in nudged]


def schedule_of(settings: Settings, project: Project) -> tuple[str, str]:
    """The project's cron expression and time zone: its own, else those of the settings."""
    if project.schedule is None:
        return settings.schedule, project.time_zone or settings.time_zone
    return project.schedule, project.time_zone or settings.time_zone


def _trigger(ctx: Context, s: Session, project: Project) -> Trigger | None:
    now, last = ctx.now(), rounds.latest(s, project.id)
    if last is None:
        return Trigger.first if projects.has_tasks(s, project.id) else None
    if last.status not in FINISHED:
        return None
    slot = last_slot(*schedule_of(ctx.settings, project), last.opened_at, now)
    seen = rounds.latest_answered(s, project.id)
    news = annotations.news(s, project.id, seen, ctx.settings.annotations_per_round, slot)
    return due(now, last, news, slot, policy(ctx.settings))
