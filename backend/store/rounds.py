"""Rows of rounds and their frozen items. Moving on is an UPDATE that names the state and the claim it came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from backend.errors import ClaimLost, NotFound, RoundRunning
from backend.store.projects import chunks
from backend.tables import FINISHED, Role, Round, RoundItem, RoundStatus, Task, Trigger


def open_round(s: Session, project_id: int, *, trigger: Trigger, strategy: str, seed: int, now: datetime) -> Round:
    """A new round; RoundRunning when the project has an unfinished one (two openers at once included)."""
    number = s.scalar(select(func.coalesce(func.max(Round.number) + 1, 0)).where(Round.project_id == project_id)) or 0
    row = Round(
        project_id=project_id, number=number, status=RoundStatus.opened, trigger=trigger, strategy=strategy,
        seed=seed, attempts=0, opened_at=now,
    )  # fmt: skip
    try:
        with s.begin_nested():
            s.add(row)
    except IntegrityError:
        raise RoundRunning(f"a round of project {project_id} is running; wait for it to finish") from None
    return row


def get(s: Session, round_id: int) -> Round:
    row = s.get(Round, round_id)
    if row is None:
        raise NotFound(f"there is no round {round_id}; `wardround rounds list PROJECT` shows those there are")
    return row


def of_project(s: Session, project_id: int) -> Sequence[Round]:
    return s.scalars(select(Round).where(Round.project_id == project_id).order_by(Round.number)).all()


def latest(s: Session, project_id: int) -> Round | None:
    return s.scalars(select(Round).where(Round.project_id == project_id).order_by(Round.number.desc()).limit(1)).first()


def latest_published(s: Session, project_id: int) -> Round | None:
    published = select(Round).where(Round.project_id == project_id, Round.status == RoundStatus.done)
    return s.scalars(published.order_by(Round.number.desc()).limit(1)).first()


def latest_selected(s: Session, project_id: int) -> Round | None:
    """The last round that froze a training set, whatever became of it."""
    selected = select(Round).join(RoundItem, RoundItem.round_id == Round.id).where(Round.project_id == project_id)
    return s.scalars(selected.order_by(Round.number.desc()).limit(1)).first()


def unclaimed(s: Session, stale_before: datetime) -> Sequence[Round]:
    """Unfinished rounds that nobody runs: never claimed, handed back, or silent since `stale_before`."""
    return s.scalars(select(Round).where(_unfinished(), _free(stale_before)).order_by(Round.id)).all()


def claim(s: Session, round_id: int, owner: str, now: datetime, stale_before: datetime) -> bool:
    """Take the round for `owner`; False when it is finished or another one runs it."""
    taken = update(Round).where(Round.id == round_id, _unfinished(), _free(stale_before))
    return _changed(s, taken.values(claim=owner, heartbeat_at=now, attempts=Round.attempts + 1))


def beat(s: Session, round_id: int, owner: str, now: datetime, progress: dict[str, Any]) -> bool:
    """Say that `owner` is alive; False when the claim is lost."""
    return _changed(s, _mine(round_id, owner).values(heartbeat_at=now, progress=progress))


def advance(
    s: Session, round_id: int, owner: str, came_from: RoundStatus, to: RoundStatus, now: datetime, **values: Any
) -> None:
    """Move on from one status to the next; ClaimLost when another process has moved it."""
    if to in FINISHED:
        values |= {"finished_at": now, "claim": None}
    moved = _mine(round_id, owner).where(Round.status == came_from)
    # Whatever stopped an earlier attempt is over.
    if not _changed(s, moved.values(status=to, heartbeat_at=now, attempts=1, error=None, **values)):
        raise ClaimLost(f"round {round_id} is no longer {came_from} under this process")


def change(s: Session, round_id: int, owner: str, **values: Any) -> None:
    if not _changed(s, _mine(round_id, owner).values(**values)):
        raise ClaimLost(f"round {round_id} was taken over by another process")


def release(s: Session, round_id: int, owner: str, error: str | None, *, forgive: bool) -> None:
    """Hand the round back; `forgive` when the crash was not the round's own."""
    attempts = Round.attempts - 1 if forgive else Round.attempts
    s.execute(_mine(round_id, owner).values(claim=None, heartbeat_at=None, error=error, attempts=attempts))


def fail(s: Session, round_id: int, owner: str, error: str, now: datetime) -> None:
    failed = _mine(round_id, owner)
    s.execute(failed.values(status=RoundStatus.failed, claim=None, error=error, finished_at=now))


def freeze_items(s: Session, items: Iterable[RoundItem]) -> None:
    s.add_all(items)
    s.flush()


def items(s: Session, round_id: int, role: Role | None = None) -> Sequence[RoundItem]:
    """The frozen items, in the order every process sees."""
    wanted = select(RoundItem).where(RoundItem.round_id == round_id)
    if role is not None:
        wanted = wanted.where(RoundItem.role == role)
    return s.scalars(wanted.order_by(RoundItem.task_id, RoundItem.annotation_id, RoundItem.label)).all()


def groups(s: Session, items: Sequence[RoundItem]) -> dict[int, str]:
    """The group of each task that the items speak of."""
    found: dict[int, str] = {}
    for chunk in chunks(sorted({item.task_id for item in items})):
        rows = s.execute(select(Task.id, Task.group_key).where(Task.id.in_(chunk)))
        found.update((task_id, key) for task_id, key in rows)
    return found


def count_tasks(s: Session, round_id: int, role: Role) -> int:
    counted = select(func.count(func.distinct(RoundItem.task_id)))
    return s.scalar(counted.where(RoundItem.round_id == round_id, RoundItem.role == role)) or 0


def _unfinished() -> Any:
    return Round.status.not_in(FINISHED)


def _free(stale_before: datetime) -> Any:
    return or_(Round.claim.is_(None), Round.heartbeat_at < stale_before)


def _mine(round_id: int, owner: str) -> Any:
    return update(Round).where(Round.id == round_id, Round.claim == owner, _unfinished())


def _changed(s: Session, statement: Any) -> bool:
    result: CursorResult[Any] = s.execute(statement)  # type: ignore[assignment]
    return result.rowcount == 1
