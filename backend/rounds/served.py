"""Label Studio serves what was published last, or is put right: a round may be stopped between its switch and a row."""

from __future__ import annotations

import logging

from backend.context import Context
from backend.rounds.publish_queue import PREFIX
from backend.store import Session, projects, rounds
from backend.tables import FINISHED

log = logging.getLogger(__name__)


def repair(ctx: Context, project_id: int) -> bool:
    """Switch Label Studio back to the published version where it serves another one of ours; whether it did.

    One that is not ours is somebody's decision: it is only said. While a round is unfinished nothing is done.
    """
    with ctx.store.read() as s:
        published = _settled(s, project_id)
    if published is None:
        return False
    served = ctx.label_studio.project(project_id).get("model_version") or ""
    if served == published:
        return False
    if not str(served).startswith(PREFIX):
        log.error(
            "Label Studio serves model version %r of project %s, not %r: the queue is not served in our order; "
            "`wardround connect %s` puts it right", served, project_id, published, project_id,
        )  # fmt: skip
        return False
    with ctx.store.read() as s:
        if _settled(s, project_id) != published:
            return False  # a round began meanwhile; its publication decides
    ctx.label_studio.update_project(project_id, model_version=published)
    log.warning("Label Studio served %s of a round that was stopped; it serves %s again", served, published)
    return True


def _settled(s: Session, project_id: int) -> str | None:
    """What the project published last, if no round may be about to change it."""
    last = rounds.latest(s, project_id)
    return projects.get(s, project_id).published_version if last and last.status in FINISHED else None
