"""Hand a queue to Label Studio in few large requests, so that a crash anywhere loses little and doubles nothing.

Label Studio has no way to say "only if it is not there yet": what is sent twice is there twice. So each row is sent at
most once under a name. Before a request its ranks are written down; where its answer was never heard, Label Studio is
asked what it has, and while that is less than all, the request may still be at work in there. Then the name is given
up, and what arrives under it later is never served.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import orjson

from backend.label_studio import payloads
from backend.label_studio.errors import LabelStudioRefused, LabelStudioUnauthorised
from backend.label_studio.fitting import fitting
from backend.rounds.job import Job
from backend.store import predictions, publications
from backend.tables import Publication

log = logging.getLogger(__name__)

# Each request costs Label Studio a pass over the whole project (0.8 ms a task, unless its faster import is on) and
# 1 to 3 ms a row. The first is small: it tells how fast this Label Studio is.
_FIRST_ROWS = 1000
_MOST_ROWS = 10_000
_QUICK_SECONDS = 15.0  # a request twice as large is well within the patience of proxies, a minute or so
_SLOW_SECONDS = 45.0
_BATCH_BYTES = 32_000_000  # Label Studio holds a request in memory several times over
_READ_ROWS = 250  # stored predictions in memory at a time: one may be a megabyte
# How long nothing may arrive before a request without an answer counts as lost
_SETTLING_SECONDS = 20.0
_SETTLING_FIRST_SECONDS = 2.0  # nothing came before it, so giving the name up costs nothing


@dataclass(frozen=True)
class Outgoing:
    """What is published: a queue, best first, with one version's predictions; without a version they are empty.

    hidden: tasks whose prediction is so bad that it would cost more than none; they keep their place, with no regions.
    """

    publication: Publication
    queue: Sequence[int]
    version_id: int | None
    hidden: Collection[int] = ()

    @property
    def name(self) -> str:
        return self.publication.name


def push(job: Job, outgoing: Outgoing) -> bool:
    """Send what is not there yet; False when the name must be given up, and all be sent under another.

    Raises PredictionsDropped; ClaimLost and Interrupted between two requests, and whatever Label Studio answers: all of
    them leave a publication that goes on.
    """
    sent = _heard(job, outgoing)
    if sent is None:
        return False
    rows = _FIRST_ROWS
    while sent < len(outgoing.queue):
        job.claim.report("publish", sent, len(outgoing.queue))
        batch = _batch(job, outgoing, sent, rows)
        _mark(job, sent, sent + len(batch))
        started = time.monotonic()
        if not _send(job, batch, sent):
            return False
        rows = next_rows(rows, time.monotonic() - started)
        sent += len(batch)
    _mark(job, sent, sent)
    job.claim.report("publish", sent, len(outgoing.queue))
    return True


def next_rows(rows: int, seconds: float) -> int:
    """How many rows the next request takes, after one of so many that took so long."""
    if seconds < _QUICK_SECONDS:
        return min(2 * rows, _MOST_ROWS)
    if seconds > _SLOW_SECONDS:
        return max(rows // 2, _FIRST_ROWS)
    return rows


def _heard(job: Job, outgoing: Outgoing) -> int | None:
    """How many rows are there for certain; None when some may be on their way still."""
    row = outgoing.publication
    if row.sending == row.sent:
        return row.sent
    patience = _SETTLING_SECONDS if row.sent else _SETTLING_FIRST_SECONDS
    there, since = -1, time.monotonic()
    while time.monotonic() - since < patience:
        now = job.ctx.label_studio.model_versions(job.project.id).get(row.name, 0)
        if now == row.sending:
            return row.sending
        if now > there:
            there, since = now, time.monotonic()
        job.claim.report("publish", row.sent, len(outgoing.queue))
        time.sleep(min(1.0, patience / 4))
    log.warning("the answer to %s rows of %s was lost, and %s are there", row.sending - row.sent, row.name, there)
    return None


def _mark(job: Job, sent: int, sending: int) -> None:
    with job.ctx.store.begin() as s:
        job.claim.hold(s)
        publications.mark(s, job.round.id, sent=sent, sending=sending)


def _send(job: Job, batch: Sequence[bytes], sent: int) -> bool:
    """False when Label Studio refused the rows for a task that somebody deleted: it may have stored some of them."""
    try:
        job.ctx.label_studio.import_encoded(job.project.id, batch)
    except (LabelStudioRefused, LabelStudioUnauthorised) as error:
        status = error.status if isinstance(error, LabelStudioRefused) else 401
        if status == 400 and _names_deleted_tasks(job, batch):
            log.warning("tasks of project %s were deleted while their predictions were sent", job.project.id)
            return False
        if status < 500 and status != 400:  # turned away at the door
            _mark(job, sent, sent)
        raise
    return True


def _names_deleted_tasks(job: Job, batch: Sequence[bytes]) -> bool:
    wanted = {orjson.loads(item)["task"] for item in batch}
    return bool(wanted - job.ctx.label_studio.task_ids(job.project.id))


def _batch(job: Job, outgoing: Outgoing, start: int, rows: int) -> list[bytes]:
    """The next rows as JSON, bounded by number and by weight, at least one."""
    batch: list[bytes] = []
    weight = 0
    for item in _encoded(job, outgoing, start, min(start + rows, len(outgoing.queue))):
        weight += len(item)
        if batch and weight > _BATCH_BYTES:
            break
        batch.append(item)
    return batch


def _encoded(job: Job, outgoing: Outgoing, start: int, end: int) -> Iterator[bytes]:
    config = payloads.parse_label_config(job.project.label_config)
    for first in range(start, end, _READ_ROWS):
        task_ids = outgoing.queue[first : min(first + _READ_ROWS, end)]
        stored = _regions(job, outgoing, task_ids)
        for rank, task_id in enumerate(task_ids, start=first):
            all_regions = orjson.loads(stored.get(task_id, "[]"))
            regions = fitting(config, all_regions)
            if len(regions) < len(all_regions):
                log.warning("task %s: the label config has no place for some of its predicted regions", task_id)
            score = payloads.ls_score(rank, len(outgoing.queue))
            yield orjson.dumps(payloads.prediction(task_id, outgoing.name, regions, score))


def _regions(job: Job, outgoing: Outgoing, task_ids: Sequence[int]) -> dict[int, str]:
    if outgoing.version_id is None:
        return {}
    with job.ctx.store.read() as s:
        shown = [task_id for task_id in task_ids if task_id not in outgoing.hidden]
        return predictions.regions(s, outgoing.version_id, shown)
