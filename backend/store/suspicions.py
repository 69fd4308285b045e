"""Rows of annotations that are likely errors, as the last search of a project found them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from backend.tables import Annotation, Project, Suspicion, Task


def replace(s: Session, project_id: int, rows: Sequence[dict[str, Any]]) -> None:
    """What a search found in place of what the last one had; rows: the likeliest error first, without their ranks."""
    s.execute(select(Project.id).where(Project.id == project_id).with_for_update())  # one search at a time
    s.execute(delete(Suspicion).where(Suspicion.project_id == project_id))
    if rows:
        s.execute(insert(Suspicion), [{"project_id": project_id, "rank": n, **row} for n, row in enumerate(rows)])


def of_project(s: Session, project_id: int) -> list[tuple[Suspicion, Annotation]]:
    """Each suspicion with its annotation, the likeliest error first; without those that are deleted by now."""
    alive = Annotation.deleted_at.is_(None), Task.deleted_at.is_(None)
    wanted = (
        select(Suspicion, Annotation)
        .join(Annotation, Annotation.id == Suspicion.annotation_id)
        .join(Task, Task.id == Annotation.task_id)
        .where(Suspicion.project_id == project_id, *alive)
        .order_by(Suspicion.rank)
    )
    return [(suspicion, annotation) for suspicion, annotation in s.execute(wanted)]
