"""Rows of rounds and their frozen items. Moving on is an UPDATE that names the state and the claim it came from.

A claim holds until its lease runs out, by the database's clock; a round handed back rests until then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, case, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from backend.errors import ClaimLost, NotFound, RoundFinished, RoundRunning
from backend.store.clock import database_seconds
from backend.store.projects import chunks
from backend.tables import FINISHED, Role, Round, RoundItem, RoundStatus, Task, Trigger, Verdict


def open_round(
    s: Session, project_id: int, *, trigger: Trigger, strategy: str, seed: int, now: datetime, **values: Any
) -> Round:
    """A new round; RoundRunning when the project has an unfinished one (two openers at once included)."""
    number = s.scalar(select(func.coalesce(func.max(Round.number) + 1, 0)).where(Round.project_id == project_id)) or 0
    given: dict[str, Any] = {"status": RoundStatus.opened, "attempts": 0} | values
    row = Round(
        project_id=project_id, number=number, trigger=trigger, strategy=strategy, seed=seed, opened_at=now, **given
    )
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


def published_names(s: Session, project_id: int, limit: int) -> list[str]:
    """What the project's last publications are called in Label Studio, newest first."""
    published = Round.project_id == project_id, Round.status == RoundStatus.done, Round.published_version.is_not(None)
    names = select(Round.published_version).where(*published).order_by(Round.number.desc()).limit(limit)
    return [name for name in s.scalars(names) if name]


def latest_selected(s: Session, project_id: int) -> Round | None:
    """The last round that froze a training set, whatever became of it."""
    selected = select(Round).where(Round.project_id == project_id, Round.selected_at.is_not(None))
    return s.scalars(selected.order_by(Round.number.desc()).limit(1)).first()


def latest_answered(s: Session, project_id: int) -> Round | None:
    """The last round that dealt with the annotations there were: published, or called off by a person.

    A failed one did not: what it would have trained on is still news. Nor does a rollback train on anything.
    """
    over = Round.status.in_((RoundStatus.done, RoundStatus.cancelled)), Round.trigger != Trigger.rollback
    return s.scalars(
        select(Round).where(Round.project_id == project_id, *over).order_by(Round.number.desc()).limit(1)
    ).first()


def count_trained(s: Session, project_id: int, number: int) -> int:
    """How many rounds up to that number have trained a version, promoted or not."""
    trained = Round.verdict.in_((Verdict.promoted, Verdict.kept)), Round.number <= number
    return s.scalar(select(func.count()).select_from(Round).where(Round.project_id == project_id, *trained)) or 0


def of_version(s: Session, version_id: int) -> Round | None:
    """The round that trained a version."""
    trained = Round.candidate_id == version_id, Round.trigger != Trigger.rollback
    return s.scalars(select(Round).where(*trained).order_by(Round.id).limit(1)).first()


def unclaimed(s: Session) -> Sequence[Round]:
    """Unfinished rounds that nobody runs: never claimed, handed back and rested, or silent for a whole lease."""
    return s.scalars(select(Round).where(_unfinished(), _free()).order_by(Round.id)).all()


def in_status(s: Session, status: RoundStatus) -> Sequence[Round]:
    return s.scalars(select(Round).where(Round.status == status).order_by(Round.id)).all()


def claim(s: Session, round_id: int, owner: str, lease_seconds: float) -> bool:
    """Take the round for `owner`; False when it is finished, rests, or another one runs it."""
    taken = update(Round).where(Round.id == round_id, _unfinished(), _free())
    return _changed(s, taken.values(claim=owner, lease_until=_in(lease_seconds), attempts=Round.attempts + 1))


def beat(s: Session, round_id: int, owner: str, lease_seconds: float, progress: dict[str, Any] | None) -> bool:
    """Say that `owner` is alive; False when the claim is lost."""
    values: dict[str, Any] = {"lease_until": _in(lease_seconds)}
    if progress is not None:
        values["progress"] = progress
    return _changed(s, _mine(round_id, owner).values(**values))


def advance(
    s: Session, round_id: int, owner: str, came_from: RoundStatus, to: RoundStatus, now: datetime, **values: Any
) -> None:
    """Move on from one status to the next; ClaimLost when another process has moved it."""
    if to in FINISHED:
        values |= {"finished_at": now, "claim": None, "lease_until": None}
    moved = _mine(round_id, owner).where(Round.status == came_from)
    # Whatever stopped an earlier attempt is over.
    if not _changed(s, moved.values(status=to, attempts=1, hand_backs=0, error=None, **values)):
        raise ClaimLost(f"round {round_id} is no longer {came_from} under this process")


def change(s: Session, round_id: int, owner: str, **values: Any) -> None:
    if not _changed(s, _mine(round_id, owner).values(**values)):
        raise ClaimLost(f"round {round_id} was taken over by another process")


def release(s: Session, round_id: int, owner: str) -> None:
    """Let go of a round that goes on elsewhere at once."""
    s.execute(_mine(round_id, owner).values(claim=None, lease_until=None, attempts=0))


def hand_back(
    s: Session, round_id: int, owner: str, error: str, *, rest_seconds: float = 0.0, forgive: bool, counted: bool = True
) -> None:
    """Give the round up for now. `forgive` when the crash was not the round's own; nobody takes it while it rests."""
    given = {
        "claim": None,
        "lease_until": _in(rest_seconds) if rest_seconds else None,
        "error": error,
        "attempts": Round.attempts - 1 if forgive else Round.attempts,
        "hand_backs": Round.hand_backs + 1 if counted else Round.hand_backs,
    }
    s.execute(_mine(round_id, owner).values(**given))


def fail(s: Session, round_id: int, owner: str, error: str, now: datetime) -> None:
    over = {"status": RoundStatus.failed, "claim": None, "lease_until": None, "error": error, "finished_at": now}
    s.execute(_mine(round_id, owner).values(**over))


def cancel(s: Session, round_id: int, why: str, now: datetime) -> None:
    """End the round, whoever runs it: its process finds its claim lost. RoundFinished when there is nothing to end."""
    over = {"status": RoundStatus.cancelled, "claim": None, "lease_until": None, "error": why, "finished_at": now}
    if not _changed(s, update(Round).where(Round.id == round_id, _unfinished()).values(**over)):
        raise RoundFinished(f"round {round_id} is {get(s, round_id).status} already")


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


def count_tasks(s: Session, round_ids: Sequence[int]) -> dict[tuple[int, Role], int]:
    """How many tasks each round trained and evaluated on: (round, role) -> tasks."""
    counted = select(RoundItem.round_id, RoundItem.role, func.count(func.distinct(RoundItem.task_id)))
    grouped = counted.group_by(RoundItem.round_id, RoundItem.role)
    return {
        (round_id, role): n
        for chunk in chunks(round_ids)
        for round_id, role, n in s.execute(grouped.where(RoundItem.round_id.in_(chunk)))
    }


def silent_seconds(s: Session, round_id: int, lease_seconds: float) -> float | None:
    """How long ago the process that runs the round last gave a sign of life; None when none does."""
    age = case((Round.claim.is_not(None), database_seconds() + lease_seconds - Round.lease_until))
    return s.scalar(select(age).where(Round.id == round_id))


def _unfinished() -> Any:
    return Round.status.not_in(FINISHED)


def _free() -> Any:
    return or_(Round.lease_until.is_(None), Round.lease_until < database_seconds())


def _in(seconds: float) -> Any:
    return database_seconds() + seconds


def _mine(round_id: int, owner: str) -> Any:
    return update(Round).where(Round.id == round_id, Round.claim == owner, _unfinished())


def _changed(s: Session, statement: Any) -> bool:
    result: CursorResult[Any] = s.execute(statement)  # type: ignore[assignment]
    return result.rowcount == 1
