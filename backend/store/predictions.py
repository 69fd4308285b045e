"""Rows of model versions, of their predictions and of the queues made from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, delete, exists, func, insert, null, select, update
from sqlalchemy.orm import Session

from backend.errors import NotFound
from backend.store.projects import chunks, insert_ignoring
from backend.tables import Annotation, ModelVersion, Prediction, Query, Task


def version(s: Session, version_id: int) -> ModelVersion:
    row = s.get(ModelVersion, version_id)
    if row is None:
        raise NotFound(f"there is no model version {version_id}")
    return row


def serving(s: Session, project_id: int) -> ModelVersion | None:
    wanted = select(ModelVersion).where(ModelVersion.project_id == project_id, ModelVersion.serving)
    return s.scalars(wanted).first()


def by_number(s: Session, project_id: int, number: int) -> ModelVersion:
    """A project's version by the number people know it by."""
    wanted = select(ModelVersion).where(ModelVersion.project_id == project_id, ModelVersion.number == number)
    row = s.scalars(wanted).first()
    if row is None:
        raise NotFound(
            f"project {project_id} has no model version {number}; `wardround versions {project_id}` lists them"
        )
    return row


def versions(s: Session, project_id: int) -> Sequence[ModelVersion]:
    wanted = select(ModelVersion).where(ModelVersion.project_id == project_id)
    return s.scalars(wanted.order_by(ModelVersion.number)).all()


def add_version(
    s: Session, project_id: int, *, parent_id: int | None, checkpoint_sha256: str, card: dict[str, Any], now: datetime
) -> ModelVersion:
    highest = select(func.coalesce(func.max(ModelVersion.number), 0)).where(ModelVersion.project_id == project_id)
    row = ModelVersion(
        project_id=project_id, number=(s.scalar(highest) or 0) + 1, parent_id=parent_id,
        checkpoint_sha256=checkpoint_sha256, card=card, serving=False, created_at=now,
    )  # fmt: skip
    s.add(row)
    s.flush()
    return row


def serve(s: Session, project_id: int, version_id: int) -> None:
    """Make one version the serving one; the index allows no second."""
    s.execute(update(ModelVersion).where(ModelVersion.project_id == project_id).values(serving=False))
    s.execute(update(ModelVersion).where(ModelVersion.id == version_id).values(serving=True))


def of_tasks(s: Session, version_id: int, task_ids: Sequence[int]) -> dict[int, Prediction]:
    found: dict[int, Prediction] = {}
    for chunk in chunks(task_ids):
        wanted = select(Prediction).where(Prediction.model_version_id == version_id, Prediction.task_id.in_(chunk))
        found.update({row.task_id: row for row in s.scalars(wanted)})
    return found


class Scored(NamedTuple):
    """What ranking needs of a prediction; `embedding` is its bytes, None where nobody asked for them.

    stratum: the label whose score it is, "" where the model predicts nothing, None where it was not noted.
    """

    score: float | None
    embedding: bytes | None
    stratum: str | None = None
    mutual_information: float | None = None


def scored(s: Session, version_id: int, task_ids: Sequence[int], *, embeddings: bool) -> dict[int, Scored]:
    """Scores by task without the regions, which of a whole project would not fit in memory."""
    found: dict[int, Scored] = {}
    embedding = Prediction.embedding if embeddings else null()
    columns = (
        Prediction.task_id, Prediction.score, embedding.label("embedding"), Prediction.stratum,
        Prediction.mutual_information,
    )  # fmt: skip
    for chunk in chunks(task_ids):
        rows = s.execute(
            select(*columns).where(Prediction.model_version_id == version_id, Prediction.task_id.in_(chunk))
        )
        found.update((row[0], Scored(*row[1:])) for row in rows)
    return found


def regions(s: Session, version_id: int, task_ids: Sequence[int]) -> dict[int, str]:
    """JSON of the regions by task; a task without a prediction is absent."""
    found: dict[int, str] = {}
    for chunk in chunks(task_ids):
        wanted = Prediction.model_version_id == version_id, Prediction.task_id.in_(chunk)
        found.update(
            (task_id, json)
            for task_id, json in s.execute(select(Prediction.task_id, Prediction.regions_json).where(*wanted))
        )
    return found


def tasks_without(s: Session, project_id: int, version_id: int) -> Sequence[Task]:
    """Sound tasks of the project that the version has not scored, by id."""
    return s.scalars(_without(version_id).where(Task.project_id == project_id).order_by(Task.id)).all()


def unscored(s: Session, version_id: int, task_ids: Sequence[int]) -> list[Task]:
    """Of some tasks the sound ones that the version has not scored, by id."""
    found: list[Task] = []
    for chunk in chunks(task_ids):
        found += s.scalars(_without(version_id).where(Task.id.in_(chunk)).order_by(Task.id))
    return found


def _without(version_id: int) -> Select[Any]:
    predicted = exists().where(
        Prediction.task_id == Task.id, Prediction.model_version_id == version_id, Prediction.score.is_not(None)
    )
    return select(Task).where(Task.deleted_at.is_(None), Task.problem.is_(None), ~predicted)


def add(s: Session, rows: Iterable[dict[str, Any]]) -> None:
    """Insert predictions; one stored already stays as it is, unless it has no score yet and now gets one."""
    for row in rows:
        s.execute(insert_ignoring(s, Prediction, row))
        if row["score"] is not None:
            same = Prediction.task_id == row["task_id"], Prediction.model_version_id == row["model_version_id"]
            s.execute(update(Prediction).where(*same, Prediction.score.is_(None)).values(**row))


def forget(s: Session, task_ids: Sequence[int]) -> int:
    """Delete the predictions of some tasks, by every version; returns how many."""
    return sum(_delete(s, Prediction.task_id.in_(chunk)) for chunk in chunks(task_ids))


def forget_all(s: Session, project_id: int, *, without_own_prompt: bool = False) -> int:
    """Delete the predictions of a project's tasks, all or those without a prompt of their own; returns how many."""
    tasks = select(Task.id).where(Task.project_id == project_id)
    if without_own_prompt:
        tasks = tasks.where(Task.prompt.is_(None))
    return _delete(s, Prediction.task_id.in_(tasks))


def _delete(s: Session, which: ColumnElement[bool]) -> int:
    done: Any = s.execute(delete(Prediction).where(which))
    return int(done.rowcount)


def change_scores(s: Session, version_id: int, column: str, scores: Mapping[int, float]) -> None:
    """New values of one of the scores of predictions of one version, by task id."""
    for task_id, score in scores.items():
        same = Prediction.task_id == task_id, Prediction.model_version_id == version_id
        s.execute(update(Prediction).where(*same).values({column: score}))


def write_queue(s: Session, round_id: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """The round's queue in place of what it had, best first: task_id, score and arm of each place."""
    s.execute(delete(Query).where(Query.round_id == round_id))
    if rows:
        s.execute(insert(Query), [{"round_id": round_id, "rank": rank, **row} for rank, row in enumerate(rows)])


def queue(s: Session, round_id: int) -> Sequence[Query]:
    return s.scalars(select(Query).where(Query.round_id == round_id).order_by(Query.rank)).all()


def queued_ids(s: Session, round_id: int) -> list[int]:
    """The tasks of the round's queue, best first."""
    return list(s.scalars(select(Query.task_id).where(Query.round_id == round_id).order_by(Query.rank)))


def ranks(s: Session, round_id: int, task_ids: Sequence[int]) -> dict[int, int]:
    """Rank of each of the tasks in the round's queue; tasks outside it are absent."""
    found: dict[int, int] = {}
    for chunk in chunks(task_ids):
        wanted = select(Query.task_id, Query.rank).where(Query.round_id == round_id, Query.task_id.in_(chunk))
        found.update((task_id, rank) for task_id, rank in s.execute(wanted))
    return found


def waiting_between(s: Session, round_id: int, first: int, last: int | None) -> list[int]:
    """Tasks of the round's queue from rank `first` to `last`, both included, that nobody has answered or deleted."""
    answered = exists().where(Annotation.task_id == Task.id, Annotation.deleted_at.is_(None))
    wanted = (
        select(Query.task_id)
        .join(Task, Task.id == Query.task_id)
        .where(Query.round_id == round_id, Query.rank >= first, Task.deleted_at.is_(None), ~answered)
        .order_by(Query.rank)
    )
    return list(s.scalars(wanted if last is None else wanted.where(Query.rank <= last)))


def queue_size(s: Session, round_id: int) -> int:
    return s.scalar(select(func.count()).select_from(Query).where(Query.round_id == round_id)) or 0
