"""Rows of answers, in the order in which people gave them to a queue."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.tables import Annotation, Query


class Answered(NamedTuple):
    """One answer, or a skip: the rank of its task in the queue, and whose it is (Label Studio's user id)."""

    rank: int
    annotator: int | None


def of_queue(s: Session, round_id: int) -> list[Answered]:
    """The answers to tasks of the round's queue, the first to each task, in the order in which they were given."""
    alive = Annotation.deleted_at.is_(None), Annotation.created_at.is_not(None)
    wanted = (
        select(Query.rank, Annotation.completed_by)
        .join(Annotation, Annotation.task_id == Query.task_id)
        .where(Query.round_id == round_id, *alive)
        .order_by(Annotation.created_at, Annotation.id)
    )
    first: dict[int, Answered] = {}
    for rank, annotator in s.execute(wanted):
        first.setdefault(rank, Answered(rank, annotator))
    return list(first.values())
