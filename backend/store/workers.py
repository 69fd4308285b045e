"""Rows of running worker processes: who said when that it is alive."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from backend.store.clock import database_seconds
from backend.store.projects import insert_ignoring
from backend.tables import Worker


def beat(s: Session, name: str, *, lanes: str, device: str, version: str, started_at: datetime) -> None:
    """Say that a worker is alive."""
    row = {"name": name, "lanes": lanes, "device": device, "version": version, "started_at": started_at, "seen": 0.0}
    s.execute(insert_ignoring(s, Worker, row))
    s.execute(update(Worker).where(Worker.name == name).values(seen=database_seconds()))


def forget(s: Session, name: str) -> None:
    s.execute(delete(Worker).where(Worker.name == name))


def forget_silent(s: Session, seconds: float) -> None:
    """Remove workers that have said nothing for so long: killed ones cannot sign off."""
    s.execute(delete(Worker).where(Worker.seen < database_seconds() - seconds))


def all_with_age(s: Session) -> Sequence[tuple[Worker, float]]:
    """Every worker with the seconds since it last spoke."""
    rows = s.execute(select(Worker, database_seconds() - Worker.seen).order_by(Worker.name))
    return [(worker, float(age)) for worker, age in rows]
