"""What Label Studio serves, held against what was published: put right where a round left it, else said aloud."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from backend.context import Context
from backend.rounds.publish_queue import SETTINGS, differs
from backend.store import Session, predictions, projects, publications, rounds
from backend.tables import Project, RoundStatus

log = logging.getLogger(__name__)

_HEAD = 100  # places that annotators come to next: looked at each time
_SLICE = 200  # places further down, another slice each time


def repair(ctx: Context, project_id: int) -> bool:
    """Switch Label Studio back where it serves what a stopped round published; whether it did.

    A round may be stopped between its switch and its row. Anything else that is served is a person's decision.
    """
    served = str(ctx.label_studio.project(project_id).get("model_version") or "")
    with ctx.store.read() as s:
        published = _published(s, project_id)
        if published is None or not publications.was_stopped(s, project_id, served) or served == published:
            return False
    ctx.label_studio.update_project(project_id, model_version=published)
    log.warning("Label Studio served %s of a round that was stopped; it serves %s again", served, published)
    return True


def watch_served(ctx: Context, project_id: int) -> str | None:
    """Compare what is served with what was published; the difference in words, kept in the project's row.

    It is said, not undone: a person may have wanted it. While a round publishes there is nothing to compare with.
    """
    with ctx.store.read() as s:
        if _published(s, project_id) is None:
            return None
        project = projects.get(s, project_id)
    problem = _settings_differ(project, ctx.label_studio.project(project_id)) or _order_differs(ctx, project)
    with ctx.store.begin() as s:
        if _published(s, project_id) != project.published_version:
            return None  # a round published meanwhile
        if problem != project.queue_problem:
            projects.change(s, project_id, queue_problem=problem)
    if problem and not project.queue_problem:
        log.error("project %s is not served in our order: %s", project_id, problem)
    if project.queue_problem and not problem:
        log.info("project %s is served in our order again", project_id)
    return problem


def _published(s: Session, project_id: int) -> str | None:
    """What the project published last, if no round may be about to change it."""
    last = rounds.latest(s, project_id)
    busy = last is None or last.status is RoundStatus.rescored
    return None if busy else projects.get(s, project_id).published_version


def _settings_differ(project: Project, there: Mapping[str, Any]) -> str | None:
    wanted = {"model_version": project.published_version, **SETTINGS}
    wrong = [
        f"{name} is {there.get(name)!r}, not {value!r}" for name, value in wanted.items() if there.get(name) != value
    ]
    return f"{'; '.join(wrong)}; `wardround connect {project.id}` puts it right" if wrong else None


def _order_differs(ctx: Context, project: Project) -> str | None:
    """The head and a slice are looked at; only where they look wrong, all of it, which takes Label Studio a while."""
    with ctx.store.read() as s:
        published = rounds.latest_published(s, project.id)
    if published is None or not _looks_wrong(ctx, project.id, published.id):
        return None
    served = ctx.label_studio.served_order(project.id)
    with ctx.store.read() as s:
        queue = predictions.queued_ids(s, published.id)
        waiting = {task.id for task in projects.unlabelled_tasks(s, project.id)}
    problem = differs(queue, served, waiting) or _lost(ctx, project.id, (set(queue) & waiting) - set(served))
    return problem and f"{problem}; a new round ranks and publishes anew"


def _lost(ctx: Context, project_id: int, missing: Collection[int]) -> str | None:
    """Tasks that nobody was served because their prediction is gone; those answered a moment ago are not among them."""
    lost = sorted(set(ctx.label_studio.unserved_tasks(project_id)) & set(missing)) if missing else []
    return f"{len(lost)} tasks of the queue lost their prediction, the first is task {lost[0]}" if lost else None


def _looks_wrong(ctx: Context, project_id: int, round_id: int) -> bool:
    head, size = ctx.label_studio.served_page(project_id, 1, _HEAD)
    if _leaves(ctx, round_id, head, from_the_top=True):
        return True
    if size <= _HEAD:
        return False
    page = 1 + int(ctx.now().timestamp() // ctx.settings.reconcile_seconds) % -(-size // _SLICE)
    stretch, _ = ctx.label_studio.served_page(project_id, page, _SLICE)
    return _leaves(ctx, round_id, stretch, from_the_top=False)


def _leaves(ctx: Context, round_id: int, served: Sequence[int], *, from_the_top: bool) -> bool:
    with ctx.store.read() as s:
        places = predictions.ranks(s, round_id, served)
        waiting = partial(predictions.waiting_between, s, round_id)
        return gaps(places, served, waiting, from_the_top=from_the_top)


def gaps(
    places: Mapping[int, int],
    served: Sequence[int],
    waiting_between: Callable[[int, int | None], Collection[int]],
    *,
    from_the_top: bool,
) -> bool:
    """Whether a stretch of the served order leaves the queue, or leaves out a task that waits for an answer.

    places: task -> its rank in the queue; what was imported since the ranking has none and does not count.
    waiting_between: the tasks of two ranks and between them that nobody has answered; None: up to the last.
    `served` begins anywhere in the order unless `from_the_top`.
    """
    seen = [places[task_id] for task_id in served if task_id in places]
    if seen != sorted(seen):
        return True
    if not seen:
        return from_the_top and bool(waiting_between(0, None))
    return bool(set(waiting_between(0 if from_the_top else seen[0], seen[-1])) - set(served))
