"""What the database knows of how things go, as numbers. Counted inside the database: no rows are loaded for them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from alembic.script import ScriptDirectory
from sqlalchemy import case, exists, func, or_, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from backend.metrics import Gauge
from backend.store.clock import database_seconds
from backend.store.database import Store
from backend.tables import FINISHED, Annotation, Effort, ModelVersion, Project, Round, RoundStatus, Task, Worker

Samples = list[tuple[Mapping[str, str], float]]

_MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


def problem(store: Store) -> str | None:
    """What keeps the database from being used, without an address or a password; None when nothing does."""
    try:
        with store.read() as s:
            current = s.scalar(text("SELECT version_num FROM alembic_version"))
    except SQLAlchemyError:
        return "the database does not answer, or has no schema yet"
    return None if current == _newest() else f"the database has schema {current}, and {_newest()} is needed"


def gauges(s: Session, *, lease_seconds: float, now: datetime) -> list[Gauge]:
    """Everything a monitor should know of rounds, workers and projects. Ages are in seconds, Dice in [0, 1]."""
    return [
        Gauge("wardround_rounds", "Rounds by status.", _rounds(s)),
        Gauge("wardround_oldest_unfinished_round_seconds", "Age of the oldest unfinished round.", _oldest(s, now)),
        Gauge(
            "wardround_round_silent_seconds", "Since a running round gave a sign of life.", _silent(s, lease_seconds)
        ),
        Gauge("wardround_worker_silent_seconds", "Since a worker's last sign of life.", _workers(s)),
        Gauge("wardround_last_pull_seconds", "Since the last successful pull, or since connecting.", _pulls(s, now)),
        Gauge("wardround_queue_problem", "1 while Label Studio does not serve what was published, else 0.", _astray(s)),
        Gauge("wardround_pool_tasks", "Tasks that can be asked for.", _pool(s)),
        Gauge("wardround_annotations", "Usable annotations.", _annotations(s)),
        Gauge("wardround_held_out_annotated_tasks", "Held-out tasks with a usable annotation.", _held_out(s)),
        Gauge("wardround_pre_annotations", "Pre-annotations that were answered, by what became of them.", _answered(s)),
        Gauge("wardround_serving_version", "Number of the serving model version.", _serving(s)),
        Gauge("wardround_held_out_dice", "Held-out Dice of the serving model version.", _dice(s)),
    ]


def _rounds(s: Session) -> Samples:
    counted = select(Round.project_id, Round.status, func.count()).group_by(Round.project_id, Round.status)
    found = {(project_id, status): n for project_id, status, n in s.execute(counted)}
    # Noughts as well: a status that comes up for the first time would look like no change to whoever asks for one.
    return [
        ({"project": str(project_id), "status": status.value}, found.get((project_id, status), 0))
        for project_id in s.scalars(select(Project.id).order_by(Project.id))
        for status in RoundStatus
    ]


def _oldest(s: Session, now: datetime) -> Samples:
    opened = s.scalar(select(func.min(Round.opened_at)).where(Round.status.not_in(FINISHED)))
    return [({}, _seconds(opened, now) if opened else 0.0)]


def _silent(s: Session, lease_seconds: float) -> Samples:
    age = database_seconds() + lease_seconds - Round.lease_until
    running = Round.claim.is_not(None), Round.status.not_in(FINISHED)
    return _by_project(s.execute(select(Round.project_id, age).where(*running).order_by(Round.project_id)))


def _workers(s: Session) -> Samples:
    rows = s.execute(select(Worker.name, Worker.lanes, database_seconds() - Worker.seen).order_by(Worker.name))
    return [({"worker": name, "lanes": lanes}, float(age)) for name, lanes, age in rows]


def _pulls(s: Session, now: datetime) -> Samples:
    last = func.coalesce(Project.reconciled_at, Project.connected_at, type_=Project.connected_at.type)
    rows = s.execute(select(Project.id, last).where(Project.disconnected_at.is_(None)).order_by(Project.id))
    return _by_project((project_id, _seconds(at, now)) for project_id, at in rows)


def _astray(s: Session) -> Samples:
    connected = select(Project.id, Project.queue_problem.is_not(None)).where(Project.disconnected_at.is_(None))
    rows = s.execute(connected.order_by(Project.id))
    return _by_project(rows)


def _pool(s: Session) -> Samples:
    answered = exists().where(Annotation.task_id == Task.id, Annotation.deleted_at.is_(None))
    askable = Task.deleted_at.is_(None), Task.problem.is_(None), Task.held_out.is_(False), ~answered
    return _counts(s, *askable)


def _annotations(s: Session) -> Samples:
    counted = select(Annotation.project_id, func.count()).where(*_usable()).group_by(Annotation.project_id)
    return _with_noughts(s, s.execute(counted))


def _held_out(s: Session) -> Samples:
    answered = exists().where(Annotation.task_id == Task.id, *_usable())
    return _counts(s, Task.deleted_at.is_(None), Task.held_out.is_(True), answered)


def _answered(s: Session) -> Samples:
    joined = select(Annotation.project_id, Effort.accepted, func.count()).join(Effort).where(*_usable())
    counted = joined.where(Effort.accepted.is_not(None)).group_by(Annotation.project_id, Effort.accepted)
    found = {(project_id, accepted): n for project_id, accepted, n in s.execute(counted)}
    return [
        ({"project": str(project_id), "outcome": outcome}, found.get((project_id, accepted), 0))
        for project_id in s.scalars(select(Project.id).order_by(Project.id))
        for outcome, accepted in (("accepted", True), ("corrected", False))
    ]


def _serving(s: Session) -> Samples:
    serving = select(ModelVersion.project_id, ModelVersion.number).where(ModelVersion.serving.is_(True))
    return _by_project(s.execute(serving.order_by(ModelVersion.project_id)))


def _dice(s: Session) -> Samples:
    """As last measured: by the round that trained the version, or a later one that compared a candidate with it."""
    serving = s.execute(select(ModelVersion.project_id, ModelVersion.id).where(ModelVersion.serving.is_(True))).all()
    measured = ((project_id, s.scalar(_last_dice(project_id, version_id))) for project_id, version_id in serving)
    return _by_project(sorted((project_id, dice) for project_id, dice in measured if dice is not None))


def _last_dice(project_id: int, version_id: int) -> Any:
    dice = case(
        (Round.candidate_id == version_id, Round.evaluation["candidate"]["dice"].as_float()),
        else_=Round.evaluation["incumbent"]["dice"].as_float(),
    )
    took_part = or_(Round.candidate_id == version_id, Round.incumbent_id == version_id)
    measured = select(dice).where(Round.project_id == project_id, took_part, dice.is_not(None))
    return measured.order_by(Round.number.desc()).limit(1)


def _usable() -> Sequence[Any]:
    return Annotation.deleted_at.is_(None), Annotation.skipped.is_(False), Annotation.problem.is_(None)


def _counts(s: Session, *conditions: Any) -> Samples:
    counted = select(Task.project_id, func.count()).where(*conditions).group_by(Task.project_id)
    return _with_noughts(s, s.execute(counted))


def _with_noughts(s: Session, rows: Iterable[Any]) -> Samples:
    found = {row[0]: row[1] for row in rows}
    return _by_project((each, found.get(each, 0)) for each in s.scalars(select(Project.id).order_by(Project.id)))


def _by_project(rows: Iterable[Any]) -> Samples:
    return [({"project": str(project_id)}, float(value)) for project_id, value in rows]


def _seconds(since: datetime, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds())


@functools.cache
def _newest() -> str | None:
    return ScriptDirectory(str(_MIGRATIONS)).get_current_head()
