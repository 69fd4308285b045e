"""Rank the pool, hand the queue to Label Studio, and read back what it really serves."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

import strategies
from backend.errors import QueueMismatch, WardroundError
from backend.label_studio import payloads
from backend.rounds.job import Job, Write
from backend.rounds.rescore import version_to_serve
from backend.store import Session, predictions, projects
from backend.tables import Arm, ModelVersion, Prediction, Query, Task

log = logging.getLogger(__name__)

PREFIX = "wardround-"


@dataclass(frozen=True)
class Place:
    """One task's place in the queue, before it has a rank."""

    task_id: int
    score: float | None
    arm: Arm


def step(job: Job) -> Write:
    """Publish under a name of its own, switch Label Studio over, compare; then the version serves."""
    with job.ctx.store.read() as s:
        version = version_to_serve(s, job.round)
        tasks = projects.unlabelled_tasks(s, job.project.id)
        stored = predictions.of_tasks(s, version.id, [task.id for task in tasks]) if version else {}
    queue = rank(job, tasks, stored)
    there = job.ctx.label_studio.model_versions(job.project.id)
    name = _free_name(f"{PREFIX}r{job.round.number}-v{version.number if version else 0}", there)
    _push(job, name, queue, stored)
    _compare(job, [place.task_id for place in queue])
    _forget(job, set(there) - {job.project.published_version})
    return lambda s: _write(s, job, name, version, queue)


def rank(job: Job, tasks: Sequence[Task], stored: dict[int, Prediction]) -> list[Place]:
    """The whole queue: strategy and random arm over the pool, held-out tasks spread through it, broken tasks last."""
    rng = np.random.default_rng([job.round.project_id, job.round.number, job.round.seed])
    settings = job.ctx.settings
    sound = [task for task in tasks if not task.problem]
    pool = [task for task in sound if not task.held_out]
    chance = [pool[at] for at in sorted(_by_chance(len(pool), settings.random_share, rng))]
    chosen = {task.id for task in chance}
    asked = _by_strategy(job, [task for task in pool if task.id not in chosen], stored, rng)
    queue = strategies.interleave(asked, _places(_shuffled(chance, rng), stored, Arm.random), settings.random_share)
    held_out = _places(_shuffled([task for task in sound if task.held_out], rng), stored, Arm.held_out)
    queue = strategies.interleave(queue, held_out, job.project.held_out_share or settings.held_out_share)
    return queue + _places([task for task in tasks if task.problem], stored, Arm.strategy)


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


def _by_chance(n: int, share: float, rng: np.random.Generator) -> list[int]:
    size = round(n * share)
    return rng.permutation(n)[:size].tolist()


def _shuffled(tasks: list[Task], rng: np.random.Generator) -> list[Task]:
    return [tasks[at] for at in rng.permutation(len(tasks))]


def _places(tasks: Sequence[Task], stored: dict[int, Prediction], arm: Arm) -> list[Place]:
    return [Place(task.id, stored[task.id].score if task.id in stored else None, arm) for task in tasks]


def _by_strategy(job: Job, pool: list[Task], stored: dict[int, Prediction], rng: np.random.Generator) -> list[Place]:
    """The pool as the round's strategy ranks it; tasks without a prediction, such as new ones, follow by chance."""
    scored = [task for task in pool if task.id in stored and stored[task.id].score is not None]
    ranked_ids = {task.id for task in scored}
    unscored = _shuffled([task for task in pool if task.id not in ranked_ids], rng)
    ranked: list[Task] = []
    if scored:
        strategy = strategies.get(job.round.strategy)
        positions = strategy.select(_pool(scored, stored), len(scored), rng)
        ranked = [scored[at] for at in positions]
    return _places(ranked + unscored, stored, Arm.strategy)


def _pool(tasks: Sequence[Task], stored: dict[int, Prediction]) -> strategies.Pool:
    rows = [stored[task.id] for task in tasks]
    return strategies.Pool(
        scores=np.array([row.score for row in rows], dtype=float),
        embeddings=np.stack([np.frombuffer(row.embedding, dtype="<f4") for row in rows]),
        groups=np.array([task.group_key for task in tasks]),
    )


def _push(job: Job, name: str, queue: Sequence[Place], stored: dict[int, Prediction]) -> None:
    label_studio = job.ctx.label_studio
    items = [
        payloads.prediction(
            place.task_id,
            name,
            orjson.loads(stored[place.task_id].regions_json) if place.task_id in stored else [],
            payloads.ls_score(position, len(queue)),
        )
        for position, place in enumerate(queue)
    ]
    job.claim.report("publish", 0, len(items))
    if items:
        label_studio.import_predictions(job.project.id, items)
        # The import takes its time, and a round that was cancelled meanwhile must not decide what is served.
        job.claim.confirm()
        label_studio.update_project(
            job.project.id, model_version=name, sampling="Uncertainty sampling", show_collab_predictions=True
        )
    job.claim.report("publish", len(items), len(items))


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


def _free_name(wanted: str, there: Collection[str]) -> str:
    """A name Label Studio holds nothing under: what a killed publication left would stand there twice."""
    attempt = 1
    while (name := wanted if attempt == 1 else f"{wanted}-{attempt}") in there:
        attempt += 1
    return name


def _forget(job: Job, names: set[str]) -> None:
    """Delete from Label Studio what was published before the last publication, and what killed ones left.

    The last one stays: an annotator may be editing one of its pre-annotations, and submitting names it as parent.
    """
    for name in sorted(name for name in names if name.startswith(PREFIX)):
        job.claim.confirm()  # another round may have published one of them by now
        try:
            job.ctx.label_studio.delete_model_version(job.project.id, name)
        except WardroundError as error:
            log.warning("the predictions of %s stay in Label Studio for now: %s", name, error)


def _write(s: Session, job: Job, name: str, version: ModelVersion | None, queue: Sequence[Place]) -> dict[str, Any]:
    predictions.write_queue(
        s,
        [
            Query(round_id=job.round.id, rank=position, task_id=place.task_id, score=place.score, arm=place.arm)
            for position, place in enumerate(queue)
        ],
    )
    if version is not None:
        predictions.serve(s, job.project.id, version.id)
    if queue:
        projects.change(s, job.project.id, published_version=name)
    return {"published_version": name if queue else None}
