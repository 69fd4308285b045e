"""Rows of the effort ledger: which annotations are to be compared, what was found, and what readers add up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session

from backend.store.projects import chunks, insert_ignoring
from backend.tables import Annotation, Effort, Mask, ModelVersion, Publication, Query, Round, RoundStatus, Task


@dataclass(frozen=True)
class Line:
    """One annotation of the ledger; `dice` by label is None where it started from nothing, `accepted` also unknown."""

    round: int | None
    annotator: int | None
    lead_time_seconds: float | None
    accepted: bool | None
    dice: dict[str, float] | None
    labels: tuple[str, ...]  # that the answer holds
    dice_bound: float | None = None  # of its pre-annotation, before anybody saw it
    triage: dict[str, Any] | None = None  # the terms of that bound: `rounds.triage.Judged.terms`


def due(s: Session, project_id: int, limit: int) -> list[tuple[Annotation, dict[str, str]]]:
    """Usable annotations whose present state was not compared yet, by id, with their masks (label -> sha256)."""
    wanted = (
        select(Annotation)
        .join(Task, Annotation.task_id == Task.id)
        .outerjoin(Effort, Effort.annotation_id == Annotation.id)
        .where(Annotation.project_id == project_id, Annotation.updated_at.is_not(None), *_counted())
        .where(or_(Effort.annotation_id.is_(None), Effort.updated_at != Annotation.updated_at))
    )
    rows = s.scalars(wanted.order_by(Annotation.id).limit(limit)).all()
    masks: dict[int, dict[str, str]] = {}
    for chunk in chunks([row.id for row in rows]):
        for mask in s.scalars(select(Mask).where(Mask.annotation_id.in_(chunk))):
            masks.setdefault(mask.annotation_id, {})[mask.label] = mask.sha256
    return [(row, masks.get(row.id, {})) for row in rows]


def count_due(s: Session, project_id: int) -> int:
    """How many usable annotations wait to be compared."""
    measured = select(Effort.annotation_id).where(
        Effort.annotation_id == Annotation.id, Effort.updated_at == Annotation.updated_at
    )
    waiting = select(func.count()).select_from(Annotation).join(Task, Annotation.task_id == Task.id)
    known = Annotation.project_id == project_id, Annotation.updated_at.is_not(None)
    return s.scalar(waiting.where(*known, *_counted(), ~measured.exists())) or 0


def publication(s: Session, project_id: int, name: str) -> Round | None:
    """The round that published under a name, or is about to end having done so."""
    joined = select(Round).outerjoin(Publication, Publication.round_id == Round.id)
    named = or_(Round.published_version == name, Publication.name == name)
    wanted = joined.where(Round.project_id == project_id, named)
    return s.scalars(wanted.order_by(Round.number.desc()).limit(1)).first()


def served(s: Session, task_id: int, at: datetime) -> Round | None:
    """The round whose queue served a task at a time: the last one published by then that ranked the task."""
    published = Round.status == RoundStatus.done, Round.published_version.is_not(None), Round.finished_at <= at
    wanted = select(Round).join(Query, Query.round_id == Round.id).where(Query.task_id == task_id, *published)
    return s.scalars(wanted.order_by(Round.number.desc()).limit(1)).first()


def version_id(s: Session, project_id: int, number: int) -> int | None:
    """The id of a project's version by the number people know it by; None where there is none."""
    numbered = ModelVersion.project_id == project_id, ModelVersion.number == number
    return s.scalar(select(ModelVersion.id).where(*numbered))


def save(s: Session, rows: Iterable[dict[str, Any]]) -> None:
    """Store what was found; of an annotation that was compared before, the newer state stays."""
    for row in sorted(rows, key=lambda row: row["annotation_id"]):
        s.execute(insert_ignoring(s, Effort, row))
        older = Effort.annotation_id == row["annotation_id"], Effort.updated_at < row["updated_at"]
        s.execute(update(Effort).where(*older).values(**row))


def ledger(s: Session, project_id: int) -> list[Line]:
    """A line for each usable annotation that was compared, by id."""
    columns = (
        Annotation.id, Round.number, Annotation.completed_by, Annotation.lead_time_seconds, Effort.accepted,
        Effort.dice, Query.dice_bound, Publication.triage,
    )  # fmt: skip
    rows = s.execute(
        select(*columns)
        .join(Effort, Effort.annotation_id == Annotation.id)
        .join(Task, Annotation.task_id == Task.id)
        .outerjoin(Round, Effort.round_id == Round.id)
        .outerjoin(Query, and_(Query.round_id == Effort.round_id, Query.task_id == Annotation.task_id))
        .outerjoin(Publication, Publication.round_id == Effort.round_id)
        .where(Annotation.project_id == project_id, *_counted())
        .order_by(Annotation.id)
    ).all()
    labels = _labels(s, [row[0] for row in rows])
    return [
        Line(
            round=row.number, annotator=row.completed_by, lead_time_seconds=row.lead_time_seconds,
            accepted=row.accepted, dice=row.dice, labels=tuple(labels.get(row.id, ())),
            dice_bound=row.dice_bound, triage=row.triage,
        )
        for row in rows
    ]  # fmt: skip


def _labels(s: Session, annotation_ids: Sequence[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for chunk in chunks(annotation_ids):
        wanted = select(Mask.annotation_id, Mask.label).where(Mask.annotation_id.in_(chunk)).order_by(Mask.label)
        for annotation_id, label in s.execute(wanted):
            found.setdefault(annotation_id, []).append(label)
    return found


def _counted() -> tuple[Any, ...]:
    """Annotations of a person that hold masks we can read, of tasks that are still there."""
    alive = Annotation.deleted_at.is_(None), Task.deleted_at.is_(None)
    return *alive, Annotation.skipped.is_(False), Annotation.problem.is_(None)
