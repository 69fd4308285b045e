"""More draws where they decide something: for the tasks around the end of what will be annotated before the next round.

Every task is scored with a few draws. Whether one far from that end, the cut, comes before or after it is plain from
those; between the tasks around it, up to `max_draws` decide. Scores of different numbers of draws do not compare, so
the scores that the tasks around the cut have among them are dealt out anew, in the order that many draws give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import strategies
from backend import predictions as journey
from backend.prompts import prompts_for
from backend.rounds.job import Job
from backend.store import predictions, projects
from backend.tables import ModelVersion, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.segmenter import Picture


@dataclass(frozen=True)
class Scored:
    """A task of the pool with the score that its few draws gave."""

    task: Task
    score: float


def refined_scores(job: Job, version: ModelVersion) -> dict[int, float]:
    """Task id → new score, for the tasks around the cut; empty where more draws would decide nothing.

    Doing it twice gives the same: the tasks around the cut keep their scores among themselves.
    """
    settings, column = job.ctx.settings, journey.score_column(job.round.strategy)
    if column is None or settings.max_draws <= settings.n_draws:
        return {}
    start, near = around_the_cut(_scored_pool(job, version, column), settings.annotations_per_round)
    images = [journey.image_of(job.ctx, one.task) for one in near]
    pictures = [
        (image, prompts_for(job.project, one.task))
        for image, one in zip(images, near, strict=True)
        if image is not None
    ]
    # An image that went away has its problem noted by now; the next round ranks without it.
    if len(pictures) < max(2, len(near)):
        return {}
    order = _order(job, version, pictures, settings.annotations_per_round - start)
    dealt = sorted((one.score for one in near), reverse=True)
    return {near[at].task.id: score for at, score in zip(order, dealt, strict=True)}


def around_the_cut(pool: Sequence[Scored], size: int) -> tuple[int, list[Scored]]:
    """Where the neighbourhood of the cut begins in the ranking, and who is in it: half a query to either side."""
    ranked = sorted(pool, key=lambda one: (-one.score, one.task.id))
    if size >= len(ranked):
        return 0, []
    half = math.ceil(size / 2)
    start = size - half
    return start, ranked[start : size + half]


def _scored_pool(job: Job, version: ModelVersion, column: str) -> list[Scored]:
    with job.ctx.store.read() as s:
        tasks = [t for t in projects.unlabelled_tasks(s, job.project.id) if not t.held_out and not t.problem]
        stored = predictions.of_tasks(s, version.id, [task.id for task in tasks])
    scores = ((task, getattr(stored[task.id], column)) for task in tasks if task.id in stored)
    return [Scored(task, score) for task, score in scores if score is not None]


def _order(job: Job, version: ModelVersion, pictures: Sequence[tuple[str, list[str]]], size: int) -> NDArray[Any]:
    """Positions of the pictures (sha256 and prompts), best first, with as many draws as the comparison takes."""
    from model.adaptive import DrawPlan, rank_pool

    def load(position: int) -> Picture:
        image_sha256, prompts = pictures[position]
        return job.ctx.files.image(image_sha256), prompts

    segmenter = job.ctx.serving.load(version).segmenter
    most = job.ctx.settings.max_draws
    plan = DrawPlan(rungs=tuple(sorted({n for n in DrawPlan().rungs if n < most} | {most})), passes_per_image=most)
    score = strategies.get(job.round.strategy).score
    return rank_pool(
        segmenter, load, len(pictures), size, score, seed=journey.seed_of(version), plan=plan,
        on_progress=lambda done, total: job.claim.report("rescore near the cut", done, total),
    ).order  # fmt: skip
