"""Score every task that the version to be served has not scored yet, and look closer around the cut.

The tasks are cut into shards, rows of their own. The process that runs the round takes one after the other, and so does
every other scoring process, on this machine or another, that is nudged meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from backend import predictions as journey
from backend.context import Context
from backend.errors import ClaimLost, Interrupted, RoundError, WardroundError
from backend.rounds.claim import new_owner
from backend.rounds.job import Job, Write, nothing
from backend.rounds.refine import refined_scores
from backend.store import Session, predictions, projects, rounds, shards
from backend.tables import Lane, ModelVersion, Project, Round, RoundStatus, Shard, Verdict

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_CALL_AGAIN_SECONDS = 2.0
_MOST_NUDGES = 16


def step(job: Job) -> Write:
    """Each prediction is stored as it is made, so whoever goes on where a killed process stopped does no work twice."""
    with job.ctx.store.read() as s:
        version = version_to_serve(s, job.round)
    if version is None:
        return nothing
    while left := _cut(job, version):
        _score_all(job, version, left)
    scores, column = refined_scores(job, version), journey.score_column(job.round.strategy)
    version_id = version.id

    def write(s: Session) -> dict[str, Any]:
        if column is not None:
            predictions.change_scores(s, version_id, column, scores)
        return {}

    return write


def help_with(ctx: Context, round_id: int, stop: threading.Event) -> int:
    """Score shards of a round that another process runs, until none is free; returns how many were scored here."""
    with ctx.store.read() as s:
        row = rounds.get(s, round_id)
        version = version_to_serve(s, row) if row.status is RoundStatus.decided else None
        project = projects.get(s, row.project_id)
    scored = 0
    if version is not None:
        work = _Scorer(ctx, project, version, round_id, lambda: _stop_if(stop))
        while work.score_next():
            scored += 1
    return scored


def version_to_serve(s: Session, row: Round) -> ModelVersion | None:
    """The version the round publishes: its candidate when promoted or restored, else the one that serves already."""
    if row.verdict in (Verdict.promoted, Verdict.restored) and row.candidate_id is not None:
        return predictions.version(s, row.candidate_id)
    return predictions.serving(s, row.project_id)


def _cut(job: Job, version: ModelVersion) -> int:
    """Shards for what is not scored; returns how many tasks that is. Those of an earlier attempt stay if unfinished."""
    with job.ctx.store.begin() as s:
        if not all(shard.done for shard in shards.of_round(s, job.round.id)):
            return sum(len(shard.task_ids) for shard in shards.of_round(s, job.round.id))
        missing = [task.id for task in predictions.tasks_without(s, job.project.id, version.id)]
        if not missing:
            return 0
        n_shards = shards.write(s, job.round.id, missing, job.ctx.settings.shard_size)
    for _ in range(min(n_shards - 1, _MOST_NUDGES)):
        job.ctx.enqueue("score_shards", job.round.id, lane=Lane.scoring)
    return len(missing)


def _score_all(job: Job, version: ModelVersion, n_tasks: int) -> None:
    """Score shards, and wait for those in other hands; a shard whose process died is free again after its lease."""
    done_here = 0

    def on_task() -> None:
        nonlocal done_here
        done_here += 1
        job.claim.report("rescore", min(done_here + elsewhere, n_tasks), n_tasks)

    elsewhere = 0
    work = _Scorer(job.ctx, job.project, version, job.round.id, on_task)
    called = time.monotonic()
    while True:
        while work.score_next():
            # A worker that is busy drops a call, so the idle ones are called again now and then.
            if time.monotonic() - called > _CALL_AGAIN_SECONDS:
                called = time.monotonic()
                job.ctx.enqueue("score_shards", job.round.id, lane=Lane.scoring)
        with job.ctx.store.read() as s:
            found = shards.of_round(s, job.round.id)
        if all(shard.done for shard in found):
            return
        elsewhere = max(0, sum(len(shard.task_ids) for shard in found if shard.done) - done_here)
        job.claim.report("rescore", min(done_here + elsewhere, n_tasks), n_tasks)
        time.sleep(_POLL_SECONDS)


class _Scorer:
    """Takes shards of one round. `on_task` is called after each task and may raise to stop the work."""

    def __init__(self, ctx: Context, project: Project, version: ModelVersion, round_id: int, on_task: Any) -> None:
        self.ctx = ctx
        self.project = project
        self.version = version
        self.round_id = round_id
        self.owner = new_owner()
        self._on_task = on_task
        self._beaten = time.monotonic()

    def score_next(self) -> bool:
        """Score one shard; False when none is free. RoundError for one that ends every process that touches it."""
        settings = self.ctx.settings
        with self.ctx.store.begin() as s:
            shard = shards.claim_next(s, self.round_id, self.owner, settings.lease_seconds)
        if shard is None:
            return False
        try:
            self._refuse_deadly(shard)
            self._score(shard)
        except Exception as error:
            forgiven = isinstance(error, WardroundError) and (error.retryable or isinstance(error, ClaimLost))
            with self.ctx.store.begin() as s:
                shards.give_up(s, shard, self.owner, forgive=forgiven)
            raise
        with self.ctx.store.begin() as s:
            shards.finish(s, shard, self.owner)
        return True

    def _score(self, shard: Shard) -> None:
        with self.ctx.store.read() as s:
            missing = predictions.unscored(s, self.version.id, shard.task_ids)
        if not missing:
            return
        served = self.ctx.serving.load(self.version)
        journey.compute(self.ctx, self.project, served, missing, lambda _done: self._after_task(shard))

    def _after_task(self, shard: Shard) -> None:
        self._on_task()
        if time.monotonic() - self._beaten < min(1.0, self.ctx.settings.lease_seconds / 4):
            return
        self._beaten = time.monotonic()
        with self.ctx.store.begin() as s:
            if not shards.beat(s, shard, self.owner, self.ctx.settings.lease_seconds):
                log.warning("shard %s of round %s goes on in another process", shard.number, self.round_id)

    def _refuse_deadly(self, shard: Shard) -> None:
        most = self.ctx.settings.max_attempts
        if shard.attempts > most:
            raise RoundError(f"scoring tasks {shard.task_ids[0]} to {shard.task_ids[-1]} crashed {most} times")


def _stop_if(stop: threading.Event) -> None:
    if stop.is_set():
        raise Interrupted("asked to stop while scoring; the shard goes on in another process")
