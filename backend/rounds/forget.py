"""Delete from Label Studio what is published no more, in pieces that keep no annotator waiting.

Label Studio deletes a model version in one transaction: for its whole length, 5 to 10 ms a row, whoever submits an
annotation waits. So only a small rest goes that way; what comes before it is deleted one by one, which is slower by
far and disturbs nobody.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping

from backend.context import Context
from backend.rounds.publish_queue import PREFIX
from backend.store import projects, publications, rounds

log = logging.getLogger(__name__)

_AT_ONCE = 100  # rows that one request may delete: a second
_PIECE_SECONDS = 20.0  # then whoever waits for the lane has its turn
_TASKS = 200  # looked at before it is asked anew how much is left


def forget_some(ctx: Context, project_id: int) -> bool:
    """Delete a piece of what was published before the last two publications, or never; whether more is left.

    The last but one stays: an annotator may be editing one of its pre-annotations, and submitting names it as parent.
    """
    until = time.monotonic() + _PIECE_SECONDS
    while time.monotonic() < until:
        name, count = _next(ctx, project_id)
        if name is None:
            return False
        if count > _AT_ONCE and _delete_singly(ctx, project_id, name, count, until):
            continue
        ctx.label_studio.delete_model_version(project_id, name)
        log.info("deleted the predictions of %s in project %s", name, project_id)
    return _next(ctx, project_id)[0] is not None


def old(there: Collection[str], kept: Collection[str]) -> list[str]:
    """Our names among those that Label Studio has, but for those to keep; the order is always the same."""
    return sorted(name for name in there if name.startswith(PREFIX) and name not in kept)


def _next(ctx: Context, project_id: int) -> tuple[str | None, int]:
    """What to delete next and how much there is of it. Asked anew before each request: rounds go on meanwhile."""
    there: Mapping[str, int] = ctx.label_studio.model_versions(project_id)
    served = str(ctx.label_studio.project(project_id).get("model_version") or "")
    with ctx.store.read() as s:
        project = projects.get(s, project_id)
        kept = {served, project.published_version, *rounds.published_names(s, project_id, 2)}
        kept |= publications.under_way(s, project_id)
    names = old(there, {name for name in kept if name})
    return (names[0], there[names[0]]) if names else (None, 0)


def _delete_singly(ctx: Context, project_id: int, name: str, count: int, until: float) -> bool:
    """False when there was nothing to delete; stops when the piece is over."""
    deleted = 0
    for prediction_id in _holding(ctx, project_id, name, count):
        ctx.label_studio.delete_prediction(prediction_id)
        deleted += 1
        if deleted == count - _AT_ONCE or time.monotonic() > until:
            break
    return deleted > 0


def _holding(ctx: Context, project_id: int, name: str, count: int) -> Iterator[int]:
    """Ids of predictions of the version, some of them.

    We know its tasks, and delete from the end of its queue: as many as are left are the first ones. To have Label
    Studio look for them takes as long as deleting a hundred.
    """
    with ctx.store.read() as s:
        queue = publications.queue_of(s, project_id, name)[:count]
    found = False
    for task_id in queue[: -_TASKS - 1 : -1]:
        for prediction_id in ctx.label_studio.task_predictions(task_id, name):
            found = True
            yield prediction_id
    if not found:
        yield from ctx.label_studio.prediction_ids(project_id, name, _TASKS)
