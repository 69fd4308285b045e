"""Rows of what people answered. The laws: newer wins, a delete stays, nothing is erased."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, case, delete, exists, func, literal, or_, select, update
from sqlalchemy.orm import Session, aliased

from backend.store.projects import chunks, insert_ignoring
from backend.tables import Annotation, Mask, Round, RoundItem, Task

# What was received just before a round read its annotations may have been written only after it had.
_IN_FLIGHT = timedelta(seconds=60)


@dataclass(frozen=True)
class State:
    """How far the stored row of an annotation is; `updated_at` is None in the tombstone of one never heard of."""

    updated_at: datetime | None
    deleted: bool

    def is_older_than(self, updated_at: datetime) -> bool:
        return not self.deleted and (self.updated_at is None or self.updated_at < updated_at)


@dataclass(frozen=True)
class Received:
    """An annotation to store: its columns, and its masks as label -> sha256."""

    values: Mapping[str, Any]
    masks: Mapping[str, str]


@dataclass(frozen=True)
class News:
    """Usable annotations that a round has not seen.

    newest_at, nth_at: when the newest and the N-th were received, None where there is none. before_slot: how many were
    made or changed up to a given time.
    """

    count: int
    newest_at: datetime | None = None
    nth_at: datetime | None = None
    before_slot: int = 0


def states(s: Session, ids: Sequence[int]) -> dict[int, State]:
    """How far each annotation that is stored already is."""
    columns = Annotation.id, Annotation.updated_at, Annotation.deleted_at
    found: dict[int, State] = {}
    for chunk in chunks(ids):
        for annotation_id, updated_at, deleted_at in s.execute(select(*columns).where(Annotation.id.in_(chunk))):
            found[annotation_id] = State(updated_at, deleted_at is not None)
    return found


def upsert(s: Session, values: Mapping[str, Any], masks: Mapping[str, str]) -> bool:
    """Store one annotation, as `upsert_all` does; returns whether anything changed."""
    return upsert_all(s, [Received(values, masks)]) == 1


def upsert_all(s: Session, found: Iterable[Received]) -> int:
    """Store annotations with their masks, unless an equal or newer state is stored already; returns how many changed.

    A deleted annotation stays deleted, whatever arrives late. All `values` have the same keys.
    """
    newest: dict[int, Received] = {}
    for one in sorted(found, key=lambda one: one.values["updated_at"]):
        newest[one.values["id"]] = one
    # By id, so that two processes that bring the same annotations never wait for each other in a circle.
    return sum(_upsert_chunk(s, chunk) for chunk in chunks([newest[key] for key in sorted(newest)]))


def _upsert_chunk(s: Session, found: Sequence[Received]) -> int:
    insert = insert_ignoring(s, Annotation, [dict(one.values) for one in found])
    fresh = set(s.scalars(insert.returning(Annotation.id)))
    by_id = {one.values["id"]: one for one in found}
    newer = _replace_older(s, [by_id[key] for key in by_id if key not in fresh])
    masks = [
        {"annotation_id": key, "label": label, "sha256": sha256}
        for key in fresh | newer
        for label, sha256 in by_id[key].masks.items()
    ]
    for chunk in chunks(masks):
        s.execute(insert_ignoring(s, Mask, chunk))
    return len(fresh) + len(newer)


def _replace_older(s: Session, found: Sequence[Received]) -> set[int]:
    """Overwrite the rows that are older than what was found, and take their masks away; returns their ids."""
    by_id = {one.values["id"]: one.values for one in found}
    if not by_id:
        return set()
    locked = select(Annotation).where(Annotation.id.in_(by_id)).order_by(Annotation.id).with_for_update()
    newer: set[int] = set()
    for row in s.scalars(locked).all():
        values = by_id[row.id]
        if not State(row.updated_at, row.deleted_at is not None).is_older_than(values["updated_at"]):
            continue
        newer.add(row.id)
        for name, value in values.items():
            # Label Studio forgets the parent when old predictions are deleted; we do not.
            if value is not None or name != "parent_prediction":
                setattr(row, name, value)
    if newer:
        s.flush()
        s.execute(delete(Mask).where(Mask.annotation_id.in_(newer)))
    return newer


def mark_deleted(s: Session, project_id: int, ids: Collection[int], now: datetime) -> None:
    """Mark annotations deleted; one that was never heard of leaves a tombstone for its late create."""
    for chunk in chunks(sorted(ids)):
        tombstones = [
            {"id": annotation_id, "project_id": project_id, "skipped": False, "received_at": now, "deleted_at": now}
            for annotation_id in chunk
        ]
        s.execute(insert_ignoring(s, Annotation, tombstones))
        alive = Annotation.id.in_(chunk), Annotation.deleted_at.is_(None)
        s.execute(update(Annotation).where(*alive).values(deleted_at=now))


def alive_ids(s: Session, task_ids: Sequence[int], received_before: datetime | None = None) -> set[int]:
    """Annotations of the tasks that are not deleted; those that arrived before a time, if one is given."""
    conditions: list[Any] = [Annotation.deleted_at.is_(None)]
    if received_before is not None:
        conditions.append(Annotation.received_at < received_before)
    found: set[int] = set()
    for chunk in chunks(task_ids):
        found.update(s.scalars(select(Annotation.id).where(Annotation.task_id.in_(chunk), *conditions)))
    return found


def answers(s: Session, project_id: int) -> list[tuple[Task, list[tuple[Annotation, dict[str, str]]]]]:
    """For each task, by id, the latest usable annotation of each annotator with its masks (label -> sha256).

    A task's latest annotation comes last; tasks without a usable one are absent.
    """
    rows = s.execute(
        select(Annotation, Task)
        .join(Task, Annotation.task_id == Task.id)
        .where(Annotation.project_id == project_id, Task.deleted_at.is_(None), *_usable())
        .order_by(Task.id, Annotation.updated_at, Annotation.id)
    ).all()
    by_task: dict[int, tuple[Task, dict[int | None, Annotation]]] = {}
    for annotation, task in rows:
        latest = by_task.setdefault(task.id, (task, {}))[1]
        latest.pop(annotation.completed_by, None)  # an annotator who answered again stands where the new answer stands
        latest[annotation.completed_by] = annotation
    masks = _masks(s, [each.id for _, latest in by_task.values() for each in latest.values()])
    return [(task, [(each, masks.get(each.id, {})) for each in latest.values()]) for task, latest in by_task.values()]


def usable(s: Session, project_id: int) -> list[tuple[Annotation, Task, dict[str, str]]]:
    """The latest usable annotation of each task, with the task and the masks (label -> sha256), by task id."""
    return [(found[-1][0], task, found[-1][1]) for task, found in answers(s, project_id)]


def news(s: Session, project_id: int, since: Round | None, threshold: int, slot: datetime | None) -> News:
    """The usable annotations that the round `since` did not see; all of them where it is None.

    threshold: the N of `News.nth_at`. slot: the time of `News.before_slot`. What the round looked at and left out, and
    older annotations of a task whose newer one it took, it has seen: they must not open rounds for ever.
    """
    seen_at = None if since is None else since.selected_at or since.finished_at or since.opened_at
    late = [] if since is None or since.selected_at is None else _in_flight(s, project_id, since, since.selected_at)
    fresh = _news_rows(project_id, *([] if seen_at is None else [Annotation.received_at > seen_at])).subquery()
    before: Any = literal(0) if slot is None else func.sum(case((fresh.c.changed_at <= slot, 1), else_=0))
    n, newest_at, n_before = s.execute(select(func.count(), func.max(fresh.c.received_at), before)).one()
    nth_at: datetime | None = None
    if 0 < threshold <= len(late):
        nth_at = late[threshold - 1][0]
    elif 0 < threshold <= len(late) + n:
        nth = select(fresh.c.received_at).order_by(fresh.c.received_at).offset(threshold - len(late) - 1).limit(1)
        nth_at = s.scalar(nth)
    return News(
        count=len(late) + n,
        newest_at=newest_at or (late[-1][0] if late else None),
        nth_at=nth_at,
        before_slot=(n_before or 0) + sum(slot is not None and changed_at <= slot for _, changed_at in late),
    )


def left_out_key(annotation_id: int) -> str:
    """How `Round.left_out` names a single annotation of a task that is in the round all the same."""
    return f"annotation {annotation_id}"


def _in_flight(s: Session, project_id: int, since: Round, selected_at: datetime) -> list[tuple[datetime, datetime]]:
    """When the annotations were received and changed that came just before the round looked and that it did not see."""
    used = aliased(Annotation)
    taken = exists().where(
        RoundItem.round_id == since.id,
        RoundItem.task_id == Annotation.task_id,
        RoundItem.annotation_id == used.id,
        or_(
            used.updated_at > Annotation.updated_at,
            and_(used.updated_at == Annotation.updated_at, used.id >= Annotation.id),
        ),
    )
    recent = Annotation.received_at > selected_at - _IN_FLIGHT, Annotation.received_at <= selected_at
    rows = s.execute(_news_rows(project_id, *recent, ~taken).order_by(Annotation.received_at)).all()
    left_out = set(since.left_out or {})
    return [
        (received_at, changed_at)
        for received_at, changed_at, task_id, annotation_id in rows
        if left_out.isdisjoint((str(task_id), left_out_key(annotation_id)))
    ]


def _news_rows(project_id: int, *conditions: Any) -> Any:
    changed_at = func.coalesce(Annotation.updated_at, Annotation.received_at).label("changed_at")
    return (
        select(Annotation.received_at, changed_at, Annotation.task_id, Annotation.id)
        .join(Task, Annotation.task_id == Task.id)
        .where(Annotation.project_id == project_id, Task.problem.is_(None), Task.deleted_at.is_(None), *_usable())
        .where(*conditions)
    )


def _usable() -> tuple[Any, ...]:
    return Annotation.deleted_at.is_(None), Annotation.skipped.is_(False), Annotation.problem.is_(None)


def _masks(s: Session, annotation_ids: Sequence[int]) -> dict[int, dict[str, str]]:
    columns = Mask.annotation_id, Mask.label, Mask.sha256
    found: dict[int, dict[str, str]] = {}
    for chunk in chunks(annotation_ids):
        wanted = select(*columns).where(Mask.annotation_id.in_(chunk)).order_by(Mask.label)
        for annotation_id, label, sha256 in s.execute(wanted):
            found.setdefault(annotation_id, {})[label] = sha256
    return found
