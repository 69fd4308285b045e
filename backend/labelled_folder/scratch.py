"""A product of a moment: a database of its own, in which one round freezes its items.

What a simulation sees has to be what production trains on. So nothing is decoded, fused or left out here: answers are
put into an empty database, and the first step of a round looks at them there. The product's own database is only read.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend import annotations as journey
from backend import context
from backend.context import Context
from backend.label_studio.exports import Export
from backend.label_studio.payloads import Event
from backend.rounds import select_training_set
from backend.rounds.claim import Claim
from backend.rounds.job import Job
from backend.settings import Settings
from backend.store import Store, projects, rounds
from backend.store import annotations as rows
from backend.store.annotations import Received
from backend.tables import Annotation, Project, RoundItem, Task, Trigger

OnProgress = Callable[[str, int, int], None]
"""Hears what is done, how many are done, and how many there are."""

_BATCH = 100  # tasks of an export that are stored in one transaction


@dataclass(frozen=True)
class Frozen:
    """What a round would train and be evaluated on, the group of each task, and what it would leave out, and why."""

    items: Sequence[RoundItem]
    groups: dict[int, str]
    left_out: dict[str, str]


@contextmanager
def copied(ctx: Context, project_id: int, work: Path) -> Iterator[Context]:
    """The product with a copy of the project's answers in place of its database. NotConnected."""
    with ctx.store.read() as s:
        project, found = projects.get(s, project_id), rows.answers(s, project_id)
    store = Store(f"sqlite:///{work / 'answers.db'}")
    try:
        store.migrate()
        with store.begin() as s:
            projects.save(s, Project(**_columns(project)))
            projects.add_tasks(s, [_columns(task) for task, _ in found])
            given = [Received(_columns(one), masks) for _, answers in found for one, masks in answers]
            rows.upsert_all(s, given)
        yield dataclasses.replace(ctx, store=store)
    finally:
        store.close()


@contextmanager
def told(settings: Settings, export: Export, project: Project, work: Path) -> Iterator[Context]:
    """An empty product that has heard all that an export says, as webhooks would have told it. Fetches no image."""
    there = {"data_dir": work, "database_url": f"sqlite:///{work / 'answers.db'}", "files_url": "", "broker_url": ""}
    ctx = context.build(settings.model_copy(update=there))
    try:
        with ctx.store.begin() as s:
            projects.save(s, project)
        for start in range(0, len(export.tasks), _BATCH):
            tasks = export.tasks[start : start + _BATCH]
            found = [one for task in tasks for one in export.annotations[task.id]]
            journey.receive(ctx, Event("ANNOTATIONS_CREATED", project.id, found, tasks))
        yield ctx
    finally:
        ctx.close()


def answered(ctx: Context, project_id: int) -> list[Task]:
    """The tasks with an answer that could be used, by id."""
    with ctx.store.read() as s:
        return [task for task, _ in rows.answers(s, project_id)]


def freeze(ctx: Context, project_id: int, on_progress: OnProgress) -> Frozen:
    """What a round of the project, opened now, would freeze. Fetches images that are not here yet; raises what that
    raises where it is no single image's fault.
    """
    with ctx.store.begin() as s:
        opened = rounds.open_round(s, project_id, trigger=Trigger.request, strategy="none", seed=0, now=ctx.now())
        project = projects.get(s, project_id)
    write = select_training_set.step(Job(ctx, _Heard(ctx, opened.id, on_progress), project, opened))
    with ctx.store.begin() as s:
        left_out = write(s)["left_out"]
        items = rounds.items(s, opened.id)
        return Frozen(items, rounds.groups(s, items), left_out)


class _Heard(Claim):
    """Nobody else can take a round of this database: what is left of a claim is that progress is heard."""

    def __init__(self, ctx: Context, round_id: int, on_progress: OnProgress) -> None:
        super().__init__(ctx, round_id, threading.Event())
        self._on_progress = on_progress

    def report(self, step: str, done: int, total: int, **more: Any) -> None:
        super().report(step, done, total, **more)
        self._on_progress("looking at answers", done, total)


def _columns(row: Project | Task | Annotation) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__table__.columns.keys()}  # noqa: SIM118 - it is no mapping
