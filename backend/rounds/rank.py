"""Rank the pool: who is asked for first, who by chance, who is held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import strategies
from backend import predictions as journey
from backend.rounds.job import Job
from backend.store import Session, predictions, projects, rounds
from backend.store.predictions import Scored
from backend.tables import Arm, ModelVersion, Task

_UNSEEN = -1  # the stratum of images in which the model predicts nothing


@dataclass(frozen=True)
class Place:
    """One task's place in the queue, before it has a rank."""

    task_id: int
    score: float | None
    arm: Arm


@dataclass(frozen=True)
class Past:
    """What was asked before. labelled_embeddings: (m, D), m = 0 where nobody needs them.

    n_queries: how many queries a trained model has made. What was answered before the first training is the seed set.
    """

    labelled_embeddings: np.ndarray
    n_queries: int


NO_PAST = Past(np.empty((0, 0), "<f4"), 0)


def needs_embeddings(job: Job) -> bool:
    """Whether the round's strategy looks at embeddings: those of a large project weigh a hundred megabytes."""
    return "embeddings" in strategies.get(job.round.strategy).needs


def past(s: Session, job: Job, version: ModelVersion) -> Past:
    """What the strategy of a round must know of the earlier ones, as the version to be served sees it."""
    n_queries = max(0, rounds.count_trained(s, job.project.id, job.round.number) - 1)
    if not needs_embeddings(job):
        return Past(NO_PAST.labelled_embeddings, n_queries)
    labelled = projects.labelled_ids(s, job.project.id)
    seen = predictions.scored(s, version.id, labelled, embeddings=True).values()
    return Past(_rows([each.embedding for each in seen]), n_queries)


def rank(job: Job, tasks: Sequence[Task], stored: Mapping[int, Scored], before: Past = NO_PAST) -> list[Place]:
    """The whole queue: strategy and random arm over the pool, held-out tasks spread through it, broken tasks last."""
    rng = np.random.default_rng([job.round.project_id, job.round.number, job.round.seed])
    settings, scores = job.ctx.settings, _scores(job, stored)
    sound = [task for task in tasks if not task.problem]
    pool = [task for task in sound if not task.held_out]
    chance = [pool[at] for at in sorted(_by_chance(len(pool), settings.random_share, rng))]
    chosen = {task.id for task in chance}
    asked = _by_strategy(job, [task for task in pool if task.id not in chosen], stored, before, rng)
    queue = strategies.interleave(asked, _places(_shuffled(chance, rng), scores, Arm.random), settings.random_share)
    held_out = _places(_shuffled([task for task in sound if task.held_out], rng), scores, Arm.held_out)
    queue = strategies.interleave(queue, held_out, settings.held_out_share)
    return queue + _places([task for task in tasks if task.problem], scores, Arm.strategy)


def _by_chance(n: int, share: float, rng: np.random.Generator) -> list[int]:
    size = round(n * share)
    return rng.permutation(n)[:size].tolist()


def _shuffled(tasks: list[Task], rng: np.random.Generator) -> list[Task]:
    return [tasks[at] for at in rng.permutation(len(tasks))]


def _scores(job: Job, stored: Mapping[int, Scored]) -> dict[int, float | None]:
    """What the round's strategy ranks by; entropy, to be looked at, where it looks at no score."""
    column = journey.score_column(job.round.strategy) or "score"
    return {task_id: getattr(each, column) for task_id, each in stored.items()}


def _places(tasks: Sequence[Task], scores: Mapping[int, float | None], arm: Arm) -> list[Place]:
    return [Place(task.id, scores.get(task.id), arm) for task in tasks]


def _by_strategy(
    job: Job, pool: list[Task], stored: Mapping[int, Scored], before: Past, rng: np.random.Generator
) -> list[Place]:
    """The next query as the round's strategy selects it, then the others by score: nobody may get to them before the
    next ranking, and selecting all of a large pool would cost its square. Where a strategy looks at no score they
    follow by chance, and so do tasks without a prediction, such as new ones.
    """
    scores = _scores(job, stored)
    amounts = {task.id: score for task in pool if (score := scores.get(task.id)) is not None}
    scored = [task for task in pool if task.id in amounts]
    unscored = _shuffled([task for task in pool if task.id not in amounts], rng)
    query: list[Task] = []
    if scored:
        arrays = _pool(scored, [amounts[task.id] for task in scored], stored, before)
        strategy, size = strategies.get(job.round.strategy), job.ctx.settings.annotations_per_round
        query = [scored[at] for at in strategy.select(arrays, size, rng, round_number=before.n_queries)]
    asked = {task.id for task in query}
    others = _shuffled([task for task in scored if task.id not in asked], rng)
    if journey.score_column(job.round.strategy) is not None:
        others.sort(key=lambda task: -amounts[task.id])
    return _places(query + others + unscored, scores, Arm.strategy)


def _pool(
    tasks: Sequence[Task], amounts: Sequence[float], stored: Mapping[int, Scored], before: Past
) -> strategies.Pool:
    embeddings = [stored[task.id].embedding for task in tasks]
    rows = None if None in embeddings else _rows(embeddings)
    labelled = before.labelled_embeddings
    return strategies.Pool(
        scores=np.array(amounts, dtype=float),
        embeddings=rows,
        labelled_embeddings=labelled if rows is None or len(labelled) else np.empty((0, rows.shape[1]), "<f4"),
        groups=np.array([task.group_key for task in tasks]),
        strata=_strata([stored[task.id].stratum for task in tasks]),
    )


def _rows(embeddings: Sequence[bytes | None]) -> np.ndarray:
    if not embeddings:
        return NO_PAST.labelled_embeddings
    return np.stack([np.frombuffer(each or b"", "<f4") for each in embeddings])


def _strata(labels: Sequence[str | None]) -> np.ndarray:
    """A number per label, for those of predictions older than the column one of their own."""
    numbers = {label: number for number, label in enumerate(sorted({label or "" for label in labels} - {""}))}
    unknown = len(numbers)
    return np.array([_UNSEEN if each == "" else numbers.get(each or "", unknown) for each in labels], dtype=int)
