"""Rows of shards: a rescoring in pieces that several processes, on several machines, take one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CursorResult, delete, func, or_, select, update
from sqlalchemy.orm import Session

from backend.store.clock import database_seconds
from backend.tables import Shard


def write(s: Session, round_id: int, task_ids: Sequence[int], size: int) -> int:
    """Cut the tasks into shards of the round, in place of what it had; returns how many."""
    s.execute(delete(Shard).where(Shard.round_id == round_id))
    pieces = [list(task_ids[start : start + size]) for start in range(0, len(task_ids), size)]
    s.add_all(Shard(round_id=round_id, number=number, task_ids=piece) for number, piece in enumerate(pieces))
    s.flush()
    return len(pieces)


def claim_next(s: Session, round_id: int, owner: str, lease_seconds: float) -> Shard | None:
    """Take the first shard that is neither done nor in living hands; None when there is none."""
    free = Shard.done.is_(False), or_(Shard.lease_until.is_(None), Shard.lease_until < database_seconds())
    first = select(Shard.number).where(Shard.round_id == round_id, *free).order_by(Shard.number).limit(1)
    number = s.scalar(first.with_for_update(skip_locked=True))
    if number is None:
        return None
    taken = {"claim": owner, "lease_until": database_seconds() + lease_seconds, "attempts": Shard.attempts + 1}
    s.execute(update(Shard).where(Shard.round_id == round_id, Shard.number == number, *free).values(**taken))
    row = s.get(Shard, (round_id, number), populate_existing=True)
    return row if row is not None and row.claim == owner else None


def beat(s: Session, shard: Shard, owner: str, lease_seconds: float) -> bool:
    """Say that `owner` is alive; False when another one has taken the shard."""
    return _changed(s, shard, owner, lease_until=database_seconds() + lease_seconds)


def finish(s: Session, shard: Shard, owner: str) -> bool:
    return _changed(s, shard, owner, done=True, claim=None, lease_until=None)


def give_up(s: Session, shard: Shard, owner: str, *, forgive: bool) -> None:
    """Leave the shard to others, at once."""
    attempts = Shard.attempts - 1 if forgive else Shard.attempts
    _changed(s, shard, owner, claim=None, lease_until=None, attempts=attempts)


def of_round(s: Session, round_id: int) -> Sequence[Shard]:
    return s.scalars(select(Shard).where(Shard.round_id == round_id).order_by(Shard.number)).all()


def count_free(s: Session, round_id: int) -> int:
    free = Shard.done.is_(False), or_(Shard.lease_until.is_(None), Shard.lease_until < database_seconds())
    return s.scalar(select(func.count()).select_from(Shard).where(Shard.round_id == round_id, *free)) or 0


def _changed(s: Session, shard: Shard, owner: str, **values: Any) -> bool:
    mine = Shard.round_id == shard.round_id, Shard.number == shard.number, Shard.claim == owner, Shard.done.is_(False)
    result: CursorResult[Any] = s.execute(update(Shard).where(*mine).values(**values))  # type: ignore[assignment]
    return result.rowcount == 1
