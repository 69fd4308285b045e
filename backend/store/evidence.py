"""What a project's rounds and annotations say of its progress: read for a forecast and for whether it pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, exists, func, select
from sqlalchemy.orm import Session

from backend.store.rounds import count_tasks
from backend.tables import Annotation, Arm, Effort, Publication, Query, Role, Round, Task


@dataclass(frozen=True)
class Evaluated:
    """A round whose candidate was evaluated: what it trained on, and the Dice of each held-out item."""

    number: int
    n_labels: int  # tasks
    items: list[tuple[int, str]]  # task id, label
    dice: list[float]  # parallel to items


@dataclass(frozen=True)
class Answer:
    """An annotation of a task that the strategy or chance asked for; `hidden`: its pre-annotation was not shown."""

    round: int
    arm: Arm
    group: str
    dice: dict[str, float] | None
    accepted: bool | None
    lead_time_seconds: float | None
    hidden: bool


def evaluated(s: Session, project_id: int) -> list[Evaluated]:
    """The rounds that trained a candidate and have its held-out Dice, whatever became of it, oldest first."""
    rows = s.execute(
        select(Round.id, Round.number, Round.evaluation)
        .where(Round.project_id == project_id, Round.candidate_id.is_not(None), Round.evaluation.is_not(None))
        .order_by(Round.number)
    ).all()
    # A rollback names a candidate that it did not train; it has no evaluation of it.
    found = [(row.id, row.number, row.evaluation) for row in rows if row.evaluation.get("candidate")]
    counts = count_tasks(s, [round_id for round_id, _, _ in found])
    return [
        Evaluated(
            number=number,
            n_labels=counts.get((round_id, Role.train), 0),
            items=[(task_id, label) for task_id, label in evaluation["items"]],
            dice=evaluation["candidate"]["dice_per_image"],
        )
        for round_id, number, evaluation in found
    ]


def groups_held_out(s: Session, project_id: int) -> dict[int, str]:
    """The group of each held-out task."""
    wanted = select(Task.id, Task.group_key).where(Task.project_id == project_id, Task.held_out.is_(True))
    return {row.id: row.group_key for row in s.execute(wanted)}


def latest_lead_times(s: Session, project_id: int, limit: int) -> Sequence[float]:
    """Seconds of the latest usable annotations, newest first."""
    usable = Annotation.deleted_at.is_(None), Annotation.skipped.is_(False), Annotation.problem.is_(None)
    wanted = select(Annotation.lead_time_seconds).where(
        Annotation.project_id == project_id, Annotation.lead_time_seconds.is_not(None), *usable
    )
    found = s.scalars(wanted.order_by(Annotation.received_at.desc(), Annotation.id.desc()).limit(limit))
    return [seconds for seconds in found if seconds is not None]


def count_pool(s: Session, project_id: int) -> int:
    """How many tasks can still be asked for."""
    answered = exists().where(Annotation.task_id == Task.id, Annotation.deleted_at.is_(None))
    askable = Task.deleted_at.is_(None), Task.problem.is_(None), Task.held_out.is_(False), ~answered
    return s.scalar(select(func.count()).select_from(Task).where(Task.project_id == project_id, *askable)) or 0


def answers(s: Session, project_id: int) -> list[Answer]:
    """Usable annotations that were compared, of tasks that a query asked for, by id; held-out tasks are not among them.

    In a round whose strategy is chance itself there is nothing to compare.
    """
    columns = (
        Round.number, Query.arm, Task.group_key, Effort.dice, Effort.accepted, Annotation.lead_time_seconds,
        Query.dice_bound, Publication.triage,
    )  # fmt: skip
    usable = Annotation.deleted_at.is_(None), Annotation.skipped.is_(False), Annotation.problem.is_(None)
    rows = s.execute(
        select(*columns)
        .select_from(Annotation)
        .join(Effort, Effort.annotation_id == Annotation.id)
        .join(Task, Annotation.task_id == Task.id)
        .join(Round, Effort.round_id == Round.id)
        .join(Query, and_(Query.round_id == Round.id, Query.task_id == Task.id))
        .outerjoin(Publication, Publication.round_id == Round.id)
        .where(Annotation.project_id == project_id, Task.deleted_at.is_(None), *usable)
        .where(Query.arm.in_((Arm.strategy, Arm.random)), Round.strategy != "random")
        .order_by(Annotation.id)
    ).all()
    return [
        Answer(number, arm, group, dice, accepted, seconds, _hidden(bound, triage))
        for number, arm, group, dice, accepted, seconds, bound, triage in rows
    ]


def _hidden(dice_bound: float | None, triage: dict[str, Any] | None) -> bool:
    below = (triage or {}).get("redraw_dice")
    return dice_bound is not None and below is not None and dice_bound < below
