"""Rows of connected projects and of the tasks in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import exists, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from backend.errors import NotConnected, NotFound
from backend.tables import Annotation, Base, Project, Task

T = TypeVar("T")

_CHUNK = 500  # SQLite bounds the number of parameters in one statement


def get(s: Session, project_id: int) -> Project:
    """The connected project; NotConnected says how to connect it."""
    project = known(s, project_id)
    if project is None:
        raise NotConnected(f"project {project_id} is not connected; run `wardround connect {project_id}`")
    if project.disconnected_at is not None:
        raise NotConnected(
            f"project {project_id} was disconnected; `wardround connect {project_id}` takes it up where it was"
        )
    return project


def find(s: Session, project_id: int) -> Project | None:
    """The project if it is connected."""
    project = known(s, project_id)
    return project if project and project.disconnected_at is None else None


def known(s: Session, project_id: int) -> Project | None:
    """The project if it ever was connected."""
    return s.get(Project, project_id)


def held(s: Session, project_id: int) -> Project | None:
    """The project as it is and stays until this transaction ends: who wants to change it waits."""
    return s.scalars(select(Project).where(Project.id == project_id).with_for_update(read=True)).first()


def every(s: Session) -> Sequence[Project]:
    """The connected projects, by id."""
    return s.scalars(select(Project).where(Project.disconnected_at.is_(None)).order_by(Project.id)).all()


def save(s: Session, project: Project) -> None:
    s.merge(project)


def change(s: Session, project_id: int, **values: Any) -> None:
    s.execute(update(Project).where(Project.id == project_id).values(**values))


def add_tasks(s: Session, rows: Iterable[dict[str, Any]]) -> None:
    """Insert tasks that are not known yet; a known task keeps its group and its side of the held-out line."""
    # By id, so that two processes that bring the same tasks never wait for each other in a circle.
    for chunk in chunks(sorted(rows, key=lambda row: row["id"])):
        s.execute(insert_ignoring(s, Task, chunk))


def task(s: Session, task_id: int) -> Task:
    found = s.get(Task, task_id)
    if found is None:
        raise NotFound(f"task {task_id} is not known; the next reconciliation brings it if Label Studio has it")
    return found


def held_task(s: Session, task_id: int) -> Task | None:
    """The task as it is and stays until this transaction ends: who wants to change it waits."""
    return s.scalars(select(Task).where(Task.id == task_id).with_for_update(read=True)).first()


def tasks(s: Session, task_ids: Sequence[int]) -> dict[int, Task]:
    found: dict[int, Task] = {}
    for chunk in chunks(task_ids):
        found.update({row.id: row for row in s.scalars(select(Task).where(Task.id.in_(chunk)))})
    return found


class TaskState(NamedTuple):
    """What is stored of a task: where its image is, its own prompt, and the image's sha256 once it was fetched."""

    image_url: str
    prompt: str | None
    image_sha256: str | None


def task_states(s: Session, task_ids: Sequence[int]) -> dict[int, TaskState]:
    """Those of the tasks that are known."""
    found: dict[int, TaskState] = {}
    for chunk in chunks(task_ids):
        rows = s.execute(select(Task.id, Task.image_url, Task.prompt, Task.image_sha256).where(Task.id.in_(chunk)))
        found.update((task_id, TaskState(url, prompt, sha256)) for task_id, url, prompt, sha256 in rows)
    return found


def all_tasks(s: Session, project_id: int) -> Sequence[Task]:
    return s.scalars(
        select(Task).where(Task.project_id == project_id, Task.deleted_at.is_(None)).order_by(Task.id)
    ).all()


def has_tasks(s: Session, project_id: int) -> bool:
    there = select(Task.id).where(Task.project_id == project_id, Task.deleted_at.is_(None)).limit(1)
    return s.scalar(there) is not None


def count_tasks(s: Session, project_id: int) -> int:
    """How many tasks the project has, as far as we know."""
    alive = Task.project_id == project_id, Task.deleted_at.is_(None)
    return s.scalar(select(func.count()).select_from(Task).where(*alive)) or 0


def task_ids(s: Session, project_id: int, created_before: datetime) -> set[int]:
    """Tasks that are not deleted and came before a time."""
    wanted = Task.project_id == project_id, Task.deleted_at.is_(None), Task.created_at < created_before
    return set(s.scalars(select(Task.id).where(*wanted)))


def unlabelled_tasks(s: Session, project_id: int) -> Sequence[Task]:
    """Tasks that no person has answered or skipped, held out or not, broken or not, by id."""
    answered = exists().where(Annotation.task_id == Task.id, Annotation.deleted_at.is_(None))
    wanted = select(Task).where(Task.project_id == project_id, Task.deleted_at.is_(None), ~answered)
    return s.scalars(wanted.order_by(Task.id)).all()


def labelled_ids(s: Session, project_id: int) -> list[int]:
    """Tasks outside the held-out set that somebody has annotated, by id; a skipped task has no label."""
    wanted = exists().where(Annotation.task_id == Task.id, Annotation.deleted_at.is_(None), ~Annotation.skipped)
    tasks = select(Task.id).where(Task.project_id == project_id, Task.deleted_at.is_(None), ~Task.held_out, wanted)
    return list(s.scalars(tasks.order_by(Task.id)))


def change_task(s: Session, task_id: int, **values: Any) -> None:
    s.execute(update(Task).where(Task.id == task_id).values(**values))


def change_fetched(s: Session, task: Task, **values: Any) -> None:
    """Change what was found out about a task's image; nothing where the task has another image by now."""
    s.execute(update(Task).where(Task.id == task.id, Task.image_url == task.image_url).values(**values))


def forget_problems(s: Session, project_id: int) -> None:
    """Give tasks with a broken image another chance; a task without any image keeps its problem."""
    broken = Task.project_id == project_id, Task.problem.is_not(None), Task.image_url != ""
    s.execute(update(Task).where(*broken).values(problem=None))


def mark_tasks_deleted(s: Session, task_ids: Sequence[int], now: datetime) -> None:
    for chunk in chunks(task_ids):
        s.execute(update(Task).where(Task.id.in_(chunk), Task.deleted_at.is_(None)).values(deleted_at=now))


def insert_ignoring(s: Session, table: type[Base], values: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Any:
    """INSERT of one row or of several that leaves existing rows alone, in the words of the session's database."""
    # Both dialects spell it the same, but neither shares the method with the plain insert.
    insert: Any = postgresql.insert if s.get_bind().dialect.name == "postgresql" else sqlite.insert
    # One row as itself: SQLAlchemy keeps that statement compiled, and a webhook brings one at a time.
    given = values[0] if isinstance(values, Sequence) and len(values) == 1 else values
    # Into the table, not the class: the ORM would add nothing here but time.
    return insert(table.__table__).values(given).on_conflict_do_nothing()


def chunks(rows: Sequence[T]) -> Iterable[Sequence[T]]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]
