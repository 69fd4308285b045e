"""Publish a queue: freeze it, hand it to Label Studio, switch over when all is there, read back what is served."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

from backend.errors import QueueMismatch
from backend.rounds.job import Job, Write
from backend.rounds.push import Outgoing, push
from backend.rounds.rank import NO_PAST, needs_embeddings, past, rank
from backend.rounds.rescore import version_to_serve
from backend.rounds.triage import judge
from backend.store import Session, predictions, projects, publications
from backend.tables import ModelVersion, Publication

log = logging.getLogger(__name__)

PREFIX = "wardround-"
SETTINGS = {"sampling": "Uncertainty sampling", "show_collab_predictions": True}
_MOST_NAMES = 3  # in one attempt: each stands for tasks deleted, or an answer lost, while the queue was sent


def step(job: Job) -> Write:
    """Publish under a name of its own, switch Label Studio over, compare; then the version serves.

    Whoever goes on after a crash finds the queue frozen and what was sent already.
    """
    with job.ctx.store.read() as s:
        version = version_to_serve(s, job.round)
        publication = publications.of_round(s, job.round.id)
    for _ in range(_MOST_NAMES):
        publication = publication or _freeze(job, version, None)
        with job.ctx.store.read() as s:
            queue = predictions.queued_ids(s, job.round.id)
            hidden = publications.hidden(s, job.round.id)
        if not queue:
            return lambda s: _serve(s, job, version, None)
        outgoing = Outgoing(publication, queue, version.id if version else None, hidden)
        if push(job, outgoing) and _is_complete(job, outgoing):
            break
        publication = _freeze(job, version, publication)
    else:
        raise QueueMismatch(
            f"{_MOST_NAMES} times Label Studio did not hold one prediction for each task of project {job.project.id}; "
            "see that nothing else adds or deletes its tasks and predictions, then start a round by hand"
        )
    _switch(job, publication.name)
    _compare(job, queue)
    return lambda s: _serve(s, job, version, publication.name)


def differs(queue: Sequence[int], served: Sequence[int], waiting: Collection[int]) -> str | None:
    """Where the served order leaves the queue, in words; None when it does not.

    Tasks annotated since the ranking are served no more, and tasks imported since then are not in the queue:
    neither is a difference. `waiting` are the tasks that, as far as we know, nobody has answered.
    """
    known, there = set(queue), set(served)
    expected = [task_id for task_id in queue if task_id in there]
    seen = [task_id for task_id in served if task_id in known]
    if not seen and known & set(waiting):
        return "Label Studio serves none of the queue"
    for position, (wanted, got) in enumerate(zip(expected, seen, strict=True)):
        if wanted != got:
            return f"at place {position} Label Studio serves task {got}, the queue says task {wanted}"
    return None


def _freeze(job: Job, version: ModelVersion | None, given_up: Publication | None) -> Publication:
    """Rank, and write down queue and name, so that every attempt sends the same. The name is a new one."""
    label_studio = job.ctx.label_studio
    attempt = given_up.attempt + 1 if given_up else 1
    taken = label_studio.model_versions(job.project.id)
    while (name := _name(job, version, attempt)) in taken:
        attempt += 1
    with job.ctx.store.read() as s:
        tasks = projects.unlabelled_tasks(s, job.project.id)
        ids = [task.id for task in tasks]
        stored = predictions.scored(s, version.id, ids, embeddings=needs_embeddings(job)) if version else {}
        before = past(s, job, version) if version else NO_PAST
    if given_up is not None:  # a task deleted in Label Studio may be the reason, and nobody has told us yet
        there = label_studio.task_ids(job.project.id)
        tasks = [task for task in tasks if task.id in there]
    judged = judge(job, version, stored)
    queue = [
        {"task_id": at.task_id, "score": at.score, "arm": at.arm, "dice_bound": judged.bounds.get(at.task_id)}
        for at in rank(job, tasks, stored, before)
    ]
    with job.ctx.store.begin() as s:
        job.claim.hold(s)
        predictions.write_queue(s, job.round.id, queue)
        return publications.begin(s, job.round.id, name, attempt, judged.terms)


def _name(job: Job, version: ModelVersion | None, attempt: int) -> str:
    """No name may hold another one whole: Label Studio finds tasks by parts of names."""
    again = f".{attempt}" if attempt > 1 else ""
    return f"{PREFIX}r{job.round.number}{again}-v{version.number if version else 0}"


def _is_complete(job: Job, outgoing: Outgoing) -> bool:
    """Whether Label Studio holds exactly one prediction under the name for each task of the queue that it still has."""
    label_studio, project_id = job.ctx.label_studio, job.project.id
    there = label_studio.tasks_with(project_id, outgoing.name)
    count = label_studio.model_versions(project_id).get(outgoing.name, 0)
    missing = set(outgoing.queue) - there
    if missing:
        missing &= label_studio.task_ids(project_id)
    if missing or count != len(there):
        log.warning("%s: %s tasks without a prediction, %s too many", outgoing.name, len(missing), count - len(there))
    return not missing and count == len(there)


def _switch(job: Job, name: str) -> None:
    # Sending takes its time, and a round that was cancelled meanwhile must not decide what is served.
    job.claim.confirm()
    job.ctx.label_studio.update_project(job.project.id, model_version=name, **SETTINGS)


def _compare(job: Job, queue: Sequence[int]) -> None:
    """Read back what is served; on a difference Label Studio is switched back before the round fails."""
    label_studio, project_id = job.ctx.label_studio, job.project.id
    served = label_studio.served_order(project_id)
    with job.ctx.store.read() as s:
        waiting = {task.id for task in projects.unlabelled_tasks(s, project_id)}
    problem = differs(queue, served, waiting)
    if problem is None:
        return
    job.claim.confirm()
    label_studio.update_project(project_id, model_version=job.project.published_version or "")
    raise QueueMismatch(
        f"{problem}; check in project {project_id} that sampling is 'Uncertainty sampling' and that nothing else "
        "changes its model version, then start a round by hand"
    )


def _serve(s: Session, job: Job, version: ModelVersion | None, name: str | None) -> dict[str, Any]:
    if version is not None:
        predictions.serve(s, job.project.id, version.id)
    if name is not None:
        projects.change(s, job.project.id, published_version=name)
    return {"published_version": name}
