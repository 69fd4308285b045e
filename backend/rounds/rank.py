"""Rank the pool: who is asked for first, who by chance, who is held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import strategies
from backend.rounds.job import Job
from backend.store.predictions import Scored
from backend.tables import Arm, Task


@dataclass(frozen=True)
class Place:
    """One task's place in the queue, before it has a rank."""

    task_id: int
    score: float | None
    arm: Arm


def needs_embeddings(job: Job) -> bool:
    """Whether the round's strategy looks at embeddings: those of a large project weigh a hundred megabytes."""
    return "embeddings" in strategies.get(job.round.strategy).needs


def rank(job: Job, tasks: Sequence[Task], stored: Mapping[int, Scored]) -> list[Place]:
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
    queue = strategies.interleave(queue, held_out, settings.held_out_share)
    return queue + _places([task for task in tasks if task.problem], stored, Arm.strategy)


def _by_chance(n: int, share: float, rng: np.random.Generator) -> list[int]:
    size = round(n * share)
    return rng.permutation(n)[:size].tolist()


def _shuffled(tasks: list[Task], rng: np.random.Generator) -> list[Task]:
    return [tasks[at] for at in rng.permutation(len(tasks))]


def _places(tasks: Sequence[Task], stored: Mapping[int, Scored], arm: Arm) -> list[Place]:
    return [Place(task.id, stored[task.id].score if task.id in stored else None, arm) for task in tasks]


def _by_strategy(job: Job, pool: list[Task], stored: Mapping[int, Scored], rng: np.random.Generator) -> list[Place]:
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


def _pool(tasks: Sequence[Task], stored: Mapping[int, Scored]) -> strategies.Pool:
    embeddings = [stored[task.id].embedding for task in tasks]
    return strategies.Pool(
        scores=np.array([stored[task.id].score for task in tasks], dtype=float),
        embeddings=None if None in embeddings else np.stack([np.frombuffer(each or b"", "<f4") for each in embeddings]),
        groups=np.array([task.group_key for task in tasks]),
    )
