"""Rows of what people answered. The laws: newer wins, a delete stays, nothing is erased."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from backend.store.projects import chunks, insert_ignoring
from backend.tables import Annotation, Mask, Round, RoundItem, Task


def upsert(s: Session, values: Mapping[str, Any], masks: Mapping[str, str]) -> bool:
    """Store an annotation and its masks (label -> sha256) unless an equal or newer state is stored already.

    Returns whether anything changed. A deleted annotation stays deleted, whatever arrives late.
    """
    fresh = s.execute(insert_ignoring(s, Annotation, dict(values)).returning(Annotation.id)).first() is not None
    row = s.scalars(select(Annotation).where(Annotation.id == values["id"]).with_for_update()).one()
    if not fresh and not _is_newer(row, values):
        return False
    for name, value in values.items():
        # Label Studio forgets the parent when old predictions are deleted; we do not.
        if value is not None or name != "parent_prediction":
            setattr(row, name, value)
    s.execute(delete(Mask).where(Mask.annotation_id == row.id))
    s.add_all(Mask(annotation_id=row.id, label=label, sha256=sha) for label, sha in masks.items())
    s.flush()
    return True


def _is_newer(row: Annotation, values: Mapping[str, Any]) -> bool:
    if row.deleted_at is not None:
        return False
    return row.updated_at is None or values["updated_at"] > row.updated_at


def known(s: Session, annotation_id: int) -> Annotation | None:
    return s.get(Annotation, annotation_id)


def mark_deleted(s: Session, project_id: int, ids: Sequence[int], now: datetime) -> None:
    """Mark annotations deleted; one that was never heard of leaves a tombstone for its late create."""
    for annotation_id in ids:
        tombstone = {
            "id": annotation_id, "project_id": project_id, "skipped": False, "received_at": now, "deleted_at": now,
        }  # fmt: skip
        s.execute(insert_ignoring(s, Annotation, tombstone))
    for chunk in chunks(ids):
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


def usable(s: Session, project_id: int) -> list[tuple[Annotation, Task, dict[str, str]]]:
    """The latest usable annotation of each task, with the task and the masks (label -> sha256), by task id."""
    rows = s.execute(
        select(Annotation, Task)
        .join(Task, Annotation.task_id == Task.id)
        .where(Annotation.project_id == project_id, Task.deleted_at.is_(None), *_usable())
        .order_by(Task.id, Annotation.updated_at, Annotation.id)
    ).all()
    latest = {task.id: (annotation, task) for annotation, task in rows}
    masks = _masks(s, [annotation.id for annotation, _ in latest.values()])
    return [(annotation, task, masks.get(annotation.id, {})) for annotation, task in latest.values()]


def count_new(s: Session, project_id: int, since: Round | None) -> int:
    """Usable annotations that the given round did not train or evaluate on, or that have changed since it opened."""
    counted = (
        select(func.count())
        .select_from(Annotation)
        .join(Task, Annotation.task_id == Task.id)
        .where(Annotation.project_id == project_id, Task.problem.is_(None), Task.deleted_at.is_(None), *_usable())
    )
    if since is None:
        return s.scalar(counted) or 0
    used = exists().where(RoundItem.round_id == since.id, RoundItem.annotation_id == Annotation.id)
    return s.scalar(counted.where(or_(~used, Annotation.received_at > since.opened_at))) or 0


def _usable() -> tuple[Any, ...]:
    return Annotation.deleted_at.is_(None), Annotation.skipped.is_(False), Annotation.problem.is_(None)


def _masks(s: Session, annotation_ids: Sequence[int]) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for chunk in chunks(annotation_ids):
        for mask in s.scalars(select(Mask).where(Mask.annotation_id.in_(chunk)).order_by(Mask.label)):
            found.setdefault(mask.annotation_id, {})[mask.label] = mask.sha256
    return found
