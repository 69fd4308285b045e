"""JOURNEY 2: what people did in Label Studio becomes rows. Webhooks bring it at once, the reconciling pull for certain.

Every way in ends in the same upserts, so events that come twice, late or in the wrong order leave the same rows.
"""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from backend.context import Context
from backend.label_studio.errors import BadMask, UnsupportedLabelConfig
from backend.label_studio.masks import masks_of
from backend.label_studio.payloads import Annotation, Event, LabelConfig, Task, parse_label_config
from backend.store import annotations, projects
from backend.tables import Project

log = logging.getLogger(__name__)

# A webhook may be faster than the reading that a pull makes of Label Studio, and a mark of deletion is for ever: what
# arrived so recently is not missed yet. The pulls look back far enough to see it again once it has settled.
_SETTLING = timedelta(seconds=60)
_OVERLAP = timedelta(minutes=5)


@dataclass(frozen=True)
class Pulled:
    """What a reconciling pull found that the webhooks had not brought."""

    annotations: int
    deleted: int
    tasks: int


def receive(ctx: Context, event: Event) -> bool:
    """Store what a webhook says; returns whether it was about a connected project. Unknown actions change nothing."""
    with ctx.store.read() as s:
        project = projects.find(s, event.project_id)
    if project is None:
        log.info("ignored %s of project %s, which is not connected", event.action, event.project_id)
        return False
    _refresh_label_config(ctx, project, event.label_config)
    store_tasks(ctx, project, event.tasks)
    for annotation in event.annotations:
        store_annotation(ctx, project, annotation)
    with ctx.store.begin() as s:
        annotations.mark_deleted(s, project.id, event.deleted_annotation_ids, ctx.now())
        projects.mark_tasks_deleted(s, event.deleted_task_ids, ctx.now())
    return True


def reconcile(ctx: Context, project: Project) -> Pulled:
    """Pull what changed in Label Studio since the last pull, deletions included."""
    since = project.reconciled_until and project.reconciled_until - _OVERLAP
    settled = ctx.now() - _SETTLING
    _refresh_label_config(ctx, project, ctx.label_studio.project(project.id)["label_config"])
    changed = list(ctx.label_studio.tasks(project.id, updated_after=since))
    store_tasks(ctx, project, [found.task for found in changed])
    stored = sum(store_annotation(ctx, project, each) for found in changed for each in found.annotations)
    deleted = _mark_vanished(ctx, project, changed, settled)
    tasks = _mark_vanished_tasks(ctx, project, settled)
    if changed:
        with ctx.store.begin() as s:
            projects.change(s, project.id, reconciled_until=max(found.updated_at for found in changed))
    return Pulled(stored, deleted, tasks)


def store_tasks(ctx: Context, project: Project, tasks: Iterable[Task]) -> None:
    """Insert the tasks that are new; each falls on its side of the held-out line once and for ever."""
    rows = [task_row(project, task, ctx.settings.held_out_share, ctx.now()) for task in tasks]
    with ctx.store.begin() as s:
        projects.add_tasks(s, rows)


def read_fields_anew(ctx: Context, project: Project) -> None:
    """Take groups and prompts of all known tasks from the fields that the project names now.

    Only before a round has frozen its items: afterwards a task that trained could fall among the held-out ones.
    """
    for found in ctx.label_studio.tasks(project.id):
        row = task_row(project, found.task, ctx.settings.held_out_share, ctx.now())
        with ctx.store.begin() as s:
            projects.change_task(s, row["id"], **{name: row[name] for name in ("group_key", "held_out", "prompt")})


def task_row(project: Project, task: Task, held_out_share: float, now: datetime) -> dict[str, Any]:
    """The row of a task. Without a group of its own, an image is its own group."""
    group = _storable(str(task.data.get(project.group_field) or task.image_url or task.id))
    prompt = task.data.get(project.prompt_field)
    return {
        "id": task.id,
        "project_id": project.id,
        "image_url": _storable(task.image_url),
        "group_key": group,
        "prompt": _storable(prompt) if isinstance(prompt, str) and prompt.strip() else None,
        "held_out": is_held_out(group, held_out_share),
        "problem": None if task.image_url else "its data has no image where the label config looks for one",
        "created_at": now,
    }


def _storable(text: str) -> str:
    return text.replace("\0", "")  # JSON may hold it, PostgreSQL's text may not


def is_held_out(group: str, share: float) -> bool:
    """Whether a group is kept for evaluation: a hash, so every machine says the same, for ever."""
    digest = hashlib.sha256(b"held out? " + group.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def store_annotation(ctx: Context, project: Project, annotation: Annotation) -> bool:
    """Decode, write the masks to disk, then one transaction. Returns whether anything changed.

    An annotation whose mask cannot be read is stored all the same, with its problem, and trains nothing.
    """
    if not _is_news(ctx, annotation):
        return False
    masks, problem = _masks(ctx, project, annotation)
    if problem:
        log.warning("annotation %s of task %s cannot be used: %s", annotation.id, annotation.task_id, problem)
    row = {
        "id": annotation.id,
        "project_id": project.id,
        "task_id": annotation.task_id,
        "completed_by": annotation.completed_by,
        "lead_time_seconds": annotation.lead_time_seconds,
        "parent_prediction": annotation.parent_prediction,
        "skipped": annotation.skipped,
        "problem": problem,
        "created_at": annotation.created_at,
        "updated_at": annotation.updated_at,
        "received_at": ctx.now(),
    }
    with ctx.store.begin() as s:
        return annotations.upsert(s, row, masks)


def _is_news(ctx: Context, annotation: Annotation) -> bool:
    # A cheap look first: the pull sees every annotation of a changed task again, and decoding costs.
    with ctx.store.read() as s:
        row = annotations.known(s, annotation.id)
    return row is None or (row.deleted_at is None and (not row.updated_at or annotation.updated_at > row.updated_at))


def _masks(ctx: Context, project: Project, annotation: Annotation) -> tuple[dict[str, str], str | None]:
    if annotation.skipped:
        return {}, None
    try:
        config = parse_label_config(project.label_config)
        found = masks_of(annotation.regions, config, _known_size(ctx, annotation.task_id))
    except (BadMask, UnsupportedLabelConfig) as error:
        return {}, str(error)
    return {label: ctx.files.put_mask(mask) for label, mask in found.items()}, None


def _known_size(ctx: Context, task_id: int) -> tuple[int, int] | None:
    """Height and width of the task's image where it is on disk already; nobody waits for a download here."""
    with ctx.store.read() as s:
        sha256 = projects.task(s, task_id).image_sha256
    return ctx.files.image_size(sha256) if sha256 and ctx.files.has("images", sha256) else None


def _refresh_label_config(ctx: Context, project: Project, label_config: str) -> None:
    """Keep the project's latest usable label config; "" where an event does not carry it."""
    if label_config in ("", project.label_config):
        return
    try:
        config: LabelConfig = parse_label_config(label_config)
    except UnsupportedLabelConfig as error:
        log.error("project %s keeps its last usable label config: %s", project.id, error)
        return
    log.info("project %s has new labels: %s", project.id, ", ".join(config.labels))
    with ctx.store.begin() as s:
        projects.change(s, project.id, label_config=label_config)
    project.label_config = label_config


def _mark_vanished(ctx: Context, project: Project, changed: list[Any], settled: datetime) -> int:
    """Annotations of changed tasks, received before `settled`, that Label Studio no longer has."""
    there = {annotation.id for found in changed for annotation in found.annotations}
    with ctx.store.begin() as s:
        gone = annotations.alive_ids(s, [found.task.id for found in changed], settled) - there
        annotations.mark_deleted(s, project.id, sorted(gone), ctx.now())
    return len(gone)


def _mark_vanished_tasks(ctx: Context, project: Project, settled: datetime) -> int:
    there = ctx.label_studio.task_ids(project.id)
    with ctx.store.begin() as s:
        gone = {task.id for task in projects.all_tasks(s, project.id) if task.created_at < settled} - there
        projects.mark_tasks_deleted(s, sorted(gone), ctx.now())
    return len(gone)
