"""JOURNEY 2: what people did in Label Studio becomes rows. Webhooks bring it at once, the reconciling pull for certain.

Every way in ends in the same upserts, so events that come twice, late or in the wrong order leave the same rows.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from backend import prompts
from backend.context import Context
from backend.label_studio.client import TaskWithAnnotations
from backend.label_studio.errors import BadMask, UnsupportedLabelConfig
from backend.label_studio.images import as_stored
from backend.label_studio.masks import masks_of
from backend.label_studio.payloads import Annotation, Event, LabelConfig, Task, parse_label_config
from backend.store import Session, annotations, predictions, projects
from backend.tables import Project

log = logging.getLogger(__name__)

# A webhook may be faster than the reading that a pull makes of Label Studio, and a mark of deletion is for ever: what
# arrived so recently is not missed yet. The pulls look back far enough to see it again once it has settled.
_SETTLING = timedelta(seconds=60)
_OVERLAP = timedelta(minutes=5)
_BATCH = 100  # tasks of a pull that are stored in one transaction


@dataclass(frozen=True)
class Pulled:
    """What a reconciling pull found that the webhooks had not brought."""

    annotations: int
    deleted: int
    tasks: int


def receive(ctx: Context, event: Event) -> bool:
    """Store what a webhook says; returns whether it was about a connected project. Unknown actions change nothing.

    One read and at most one write: Label Studio's annotator waits.
    """
    with ctx.store.read() as s:
        project = projects.find(s, event.project_id)
        known = _look_up(s, event.tasks, event.annotations) if project else _Known({}, {})
    if project is None:
        log.info("ignored %s of project %s, which is not connected", event.action, event.project_id)
        return False
    outdated = _take_label_config(project, event.label_config)
    tasks, found = _rows(ctx, project, known, event.tasks, event.annotations)
    if not (outdated or tasks or found or event.deleted_annotation_ids or event.deleted_task_ids):
        return True
    with ctx.store.begin() as s:
        if outdated:
            _keep_label_config(s, project, outdated)
        projects.add_tasks(s, tasks)
        annotations.upsert_all(s, found)
        annotations.mark_deleted(s, project.id, event.deleted_annotation_ids, ctx.now())
        projects.mark_tasks_deleted(s, event.deleted_task_ids, ctx.now())
    return True


def reconcile(ctx: Context, project: Project) -> Pulled:
    """Pull what changed in Label Studio since the last pull, deletions included. What did not change costs nothing."""
    settled = ctx.now() - _SETTLING
    there = ctx.label_studio.project(project.id)
    if outdated := _take_label_config(project, there["label_config"]):
        with ctx.store.begin() as s:
            _keep_label_config(s, project, outdated)
    since = project.reconciled_until and project.reconciled_until - _OVERLAP
    until, stored, deleted = project.reconciled_until, 0, 0
    for changed in _batches(ctx.label_studio.tasks(project.id, updated_after=since)):
        stored += _store(ctx, project, changed)
        deleted += _mark_vanished(ctx, project, changed, settled)
        until = max([*(found.updated_at for found in changed), *([until] if until else [])])
    tasks = _mark_vanished_tasks(ctx, project, there.get("task_number"), settled)
    with ctx.store.begin() as s:
        share = _share(ctx, project)
        projects.change(s, project.id, reconciled_until=until, reconciled_at=ctx.now(), held_out_share=share)
    return Pulled(stored, deleted, tasks)


def _batches(changed: Iterable[TaskWithAnnotations]) -> Iterator[list[TaskWithAnnotations]]:
    # The first pull of a large project would hold every mask in memory at once.
    rest = iter(changed)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _store(ctx: Context, project: Project, changed: Sequence[TaskWithAnnotations]) -> int:
    """Store tasks and annotations of a pull that are new or changed; returns how many annotations were."""
    pulled = [annotation for found in changed for annotation in found.annotations]
    with ctx.store.read() as s:
        known = _look_up(s, [found.task for found in changed], pulled)
    tasks, found = _rows(ctx, project, known, [found.task for found in changed], pulled)
    edited = _edited(ctx, project, known, [found.task for found in changed])
    if not (tasks or found or edited):
        return 0
    with ctx.store.begin() as s:
        projects.add_tasks(s, tasks)
        for task_id, values in edited.items():
            projects.change_task(s, task_id, **values)
        predictions.forget(s, list(edited))
        return annotations.upsert_all(s, found)


def _edited(ctx: Context, project: Project, known: "_Known", tasks: Sequence[Task]) -> dict[int, dict[str, Any]]:
    """What changes of known tasks because their data did: prompt and image. Group and held-out side never move.

    Only a pull says how things are: webhooks may come late, and would then bring an old prompt back.
    """
    edited: dict[int, dict[str, Any]] = {}
    for task in tasks:
        state = known.tasks.get(task.id)
        row = task_row(project, task, ctx.settings.held_out_share, ctx.now())
        if state is None or (as_stored(state.image_url), state.prompt) == (row["image_url"], row["prompt"]):
            continue
        edited[task.id] = {name: row[name] for name in ("prompt", "image_url", "problem")}
        if as_stored(state.image_url) != row["image_url"]:
            edited[task.id]["image_sha256"] = None
    if edited:
        log.info("tasks %s have another prompt or image", sorted(edited))
    return edited


def read_fields_anew(ctx: Context, project: Project) -> None:
    """Take groups and prompts of all known tasks from the fields that the project names now, and forget predictions.

    Only before a round has frozen its items: afterwards a task that trained could fall among the held-out ones.
    """
    for batch in _batches(ctx.label_studio.tasks(project.id)):
        rows = [task_row(project, found.task, _share(ctx, project), ctx.now()) for found in batch]
        with ctx.store.begin() as s:
            for row in rows:
                projects.change_task(s, row["id"], **{name: row[name] for name in ("group_key", "held_out", "prompt")})
            predictions.forget(s, [row["id"] for row in rows])


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


def _share(ctx: Context, project: Project) -> float:
    """The project's own: were it the setting's of today, a new image of a known patient could change sides."""
    return project.held_out_share or ctx.settings.held_out_share


def _storable(text: str) -> str:
    return text.replace("\0", "")  # JSON may hold it, PostgreSQL's text may not


def is_held_out(group: str, share: float) -> bool:
    """Whether a group is kept for evaluation: a hash, so every machine says the same, for ever."""
    digest = hashlib.sha256(b"held out? " + group.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


@dataclass(frozen=True)
class _Known:
    """What is stored already of what has come: annotations and tasks, by id."""

    states: Mapping[int, annotations.State]
    tasks: Mapping[int, projects.TaskState]


def _look_up(s: Session, tasks: Sequence[Task], found: Sequence[Annotation]) -> _Known:
    task_ids = {task.id for task in tasks} | {annotation.task_id for annotation in found}
    return _Known(annotations.states(s, [one.id for one in found]), projects.task_states(s, sorted(task_ids)))


def _rows(
    ctx: Context, project: Project, known: _Known, tasks: Sequence[Task], found: Sequence[Annotation]
) -> tuple[list[dict[str, Any]], list[annotations.Received]]:
    """What has to be stored: rows of new tasks, and new annotations with their masks, which are written to disk here.

    An annotation of a task that nobody has told us of waits for the pull, which brings both.
    """
    share, now = _share(ctx, project), ctx.now()
    new = {task.id: task_row(project, task, share, now) for task in tasks if task.id not in known.tasks}
    received: list[annotations.Received] = []
    for one in found:
        state = known.states.get(one.id)
        # The pull sees every annotation of a changed task again, and decoding costs.
        if state is not None and not state.is_older_than(one.updated_at):
            continue
        if one.task_id in new or one.task_id in known.tasks:
            state_of_task = known.tasks.get(one.task_id)
            received.append(_received(ctx, project, one, state_of_task.image_sha256 if state_of_task else None))
        else:
            log.warning("annotation %s waits for its task %s, which is not known", one.id, one.task_id)
    return list(new.values()), received


def _received(ctx: Context, project: Project, annotation: Annotation, image_sha256: str | None) -> annotations.Received:
    """Decode, and write the masks to disk.

    An annotation whose mask cannot be read is stored all the same, with its problem, and trains nothing.
    """
    masks, problem = _masks(ctx, project, annotation, image_sha256)
    if problem:
        log.warning("annotation %s of task %s cannot be used: %s", annotation.id, annotation.task_id, problem)
    values = {
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
    return annotations.Received(values, masks)


def _masks(
    ctx: Context, project: Project, annotation: Annotation, image_sha256: str | None
) -> tuple[dict[str, str], str | None]:
    if annotation.skipped:
        return {}, None
    # Nobody waits for a download here: the size counts where the image is on disk already.
    on_disk = image_sha256 is not None and ctx.files.has("images", image_sha256)
    size = ctx.files.image_size(image_sha256) if image_sha256 and on_disk else None
    try:
        found = masks_of(annotation.regions, parse_label_config(project.label_config), size)
    except (BadMask, UnsupportedLabelConfig) as error:
        return {}, str(error)
    return {label: ctx.files.put_mask(mask) for label, mask in found.items()}, None


def _take_label_config(project: Project, label_config: str) -> prompts.Terms | None:
    """Give the project another usable label config than we knew; the terms until then, None when nothing changes.

    `label_config` is "" where none was sent.
    """
    if label_config in ("", project.label_config):
        return None
    try:
        config: LabelConfig = parse_label_config(label_config)
    except UnsupportedLabelConfig as error:
        log.error("project %s keeps its last usable label config: %s", project.id, error)
        return None
    log.info("project %s has another label config, with the labels %s", project.id, ", ".join(config.labels))
    before = prompts.terms(project)
    project.label_config = label_config
    return before


def _keep_label_config(s: Session, project: Project, outdated: prompts.Terms) -> None:
    now = prompts.terms(project)
    if now.image_key != outdated.image_key:
        project.reconciled_until = None  # each task's image may be another one: the next pull reads them all
    projects.change(s, project.id, label_config=project.label_config, reconciled_until=project.reconciled_until)
    forgotten = prompts.forget_outdated(s, project.id, outdated, now)
    log.info("project %s: %s predictions are outdated by the label config", project.id, forgotten)


def _mark_vanished(ctx: Context, project: Project, changed: Sequence[TaskWithAnnotations], settled: datetime) -> int:
    """Annotations of changed tasks, received before `settled`, that Label Studio no longer has."""
    there = {annotation.id for found in changed for annotation in found.annotations}
    with ctx.store.read() as s:
        gone = annotations.alive_ids(s, [found.task.id for found in changed], settled) - there
    if gone:
        with ctx.store.begin() as s:
            annotations.mark_deleted(s, project.id, gone, ctx.now())
    return len(gone)


def _mark_vanished_tasks(ctx: Context, project: Project, task_number: int | None, settled: datetime) -> int:
    """Tasks, stored before `settled`, that Label Studio no longer has; it is asked for all ids where the counts differ.

    Nothing balances a deletion that we missed: the pull has brought every task that Label Studio has.
    """
    with ctx.store.read() as s:
        if projects.count_tasks(s, project.id) == task_number:
            return 0
    there = ctx.label_studio.task_ids(project.id)
    with ctx.store.read() as s:
        gone = projects.task_ids(s, project.id, settled) - there
    if gone:
        with ctx.store.begin() as s:
            projects.mark_tasks_deleted(s, sorted(gone), ctx.now())
    return len(gone)
