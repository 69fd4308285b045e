"""Ranking: a round's strategy gets what the database knows of pool and labels, and every task has one place."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

import strategies
from backend import rounds
from backend.rounds import rank as ranking
from backend.rounds.claim import Claim
from backend.rounds.job import Job
from backend.store import predictions, projects
from backend.store import rounds as rows
from backend.tables import Arm, ModelVersion, Prediction, RoundStatus, Trigger, Verdict
from tests.backend.conftest import World
from tests.backend.test_rounds import PROJECT, annotate_both_sides, populate, run_first_round

N_TASKS, QUERY = 60, 6


@pytest.fixture
def pool(world: World) -> World:
    """Tasks in pairs of a group, some of them annotated; nothing is predicted yet."""
    settings = world.ctx.settings.model_copy(update={"annotations_per_round": QUERY})
    world = replace(world, ctx=replace(world.ctx, settings=settings))
    populate(world, N_TASKS)
    run_first_round(world)
    annotate_both_sides(world)
    return world


def predicted(world: World, *, unscored: int = 0) -> ModelVersion:
    """A version whose scores, strata and embeddings of all tasks but the last few are made up."""
    rng = np.random.default_rng(0)
    now = world.ctx.now()
    with world.ctx.store.begin() as s:
        version = predictions.add_version(s, PROJECT, parent_id=None, checkpoint_sha256="0" * 64, card={}, now=now)
        for task_id in range(1, N_TASKS + 1 - unscored):
            row = {
                "task_id": task_id, "model_version_id": version.id, "regions_json": "[]",
                "score": float(rng.uniform(0.1, 0.6)), "mutual_information": float(rng.uniform(0.01, 0.1)),
                "stratum": ["", "Lesion", None][task_id % 3], "embedding": rng.normal(size=8).astype("<f4").tobytes(),
                "created_at": now,
            }  # fmt: skip
            predictions.add(s, [row])
        return version


def job_of(world: World, version: ModelVersion, strategy: str, n_trained: int = 1) -> Job:
    """A round that is about to publish, the n-th that has trained."""
    for number in range(n_trained):
        with world.ctx.store.begin() as s:
            last = number == n_trained - 1
            row = rows.open_round(
                s, PROJECT, trigger=Trigger.request, strategy=strategy, seed=0, now=world.ctx.now(),
                status=RoundStatus.rescored if last else RoundStatus.done, verdict=Verdict.promoted,
                candidate_id=version.id,
            )  # fmt: skip
    return Job(world.ctx, Claim(world.ctx, row.id, threading.Event()), world.project, row)


def queue_of(job: Job, version: ModelVersion) -> list[ranking.Place]:
    with job.ctx.store.read() as s:
        tasks = projects.unlabelled_tasks(s, PROJECT)
        stored = predictions.scored(
            s, version.id, [task.id for task in tasks], embeddings=ranking.needs_embeddings(job)
        )
        before = ranking.past(s, job, version)
    return ranking.rank(job, tasks, stored, before)


@pytest.mark.parametrize("name", strategies.names())
def test_every_strategy_gives_each_unlabelled_task_one_place_and_the_same_ones_again(pool: World, name: str) -> None:
    version = predicted(pool, unscored=5)
    job = job_of(pool, version, name)
    queue = queue_of(job, version)
    with pool.ctx.store.read() as s:
        unlabelled = [task.id for task in projects.unlabelled_tasks(s, PROJECT)]
    assert sorted(place.task_id for place in queue) == unlabelled
    assert queue_of(job, version) == queue
    by_strategy = [place for place in queue if place.arm is Arm.strategy]
    assert all(place.score is None for place in by_strategy[-sum(place.score is None for place in by_strategy) :])


def test_the_strategy_is_given_embeddings_groups_strata_and_its_own_score(
    pool: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[strategies.Pool, int, int]] = []

    def select(arrays: strategies.Pool, size: int, _rng: np.random.Generator, round_number: int) -> np.ndarray:
        given.append((arrays, size, round_number))
        return np.arange(min(size, arrays.n))

    version = predicted(pool)
    for name in ("hybrid", "bald"):
        spied = replace(strategies.get(name), selection=select)
        monkeypatch.setattr(strategies, "get", lambda _name, spied=spied: spied)
        queue_of(job_of(pool, version, name, n_trained=3), version)
        monkeypatch.undo()
        with pool.ctx.store.begin() as s:
            rows.cancel(s, rows.latest(s, PROJECT).id, "done with", pool.ctx.now())  # type: ignore[union-attr]
    with pool.ctx.store.read() as s:
        kept = s.query(Prediction).filter_by(model_version_id=version.id).all()
        labelled = projects.labelled_ids(s, PROJECT)
    (by_entropy, size, round_number), (by_bald, _, _) = given
    assert (size, round_number) == (QUERY, 2)
    by_embedding = {row.embedding: row for row in kept}
    seen = [by_embedding[each.astype("<f4").tobytes()] for each in by_entropy.given("embeddings")]
    assert by_entropy.given("scores").tolist() == [row.score for row in seen]
    assert set(by_bald.given("scores").tolist()) <= {row.mutual_information for row in kept}
    assert by_entropy.given("groups").tolist() == [f"patient {row.task_id // 2}" for row in seen]
    assert by_entropy.given("strata").tolist() == [{"": -1, "Lesion": 0, None: 1}[row.stratum] for row in seen]
    known = [by_embedding[each.astype("<f4").tobytes()].task_id for each in by_entropy.given("labelled_embeddings")]
    assert known == labelled and labelled
    with pool.ctx.store.read() as s:
        tasks = projects.tasks(s, range(1, N_TASKS + 1))
        waiting = {task.id for task in projects.unlabelled_tasks(s, PROJECT)}
    assert labelled == [at for at, task in sorted(tasks.items()) if not task.held_out and at not in waiting]


def test_before_the_second_training_only_a_seed_set_was_asked_for(pool: World) -> None:
    version = predicted(pool)
    for n_trained, n_queries in ((1, 0), (2, 1)):
        job = job_of(pool, version, "entropy", n_trained)
        with pool.ctx.store.begin() as s:
            assert ranking.past(s, job, version).n_queries == n_queries
            s.delete(rows.get(s, job.round.id))


def test_after_the_query_the_highest_scores_follow(pool: World) -> None:
    version = predicted(pool)
    for name, column in (("hybrid", "score"), ("power_bald", "mutual_information")):
        job = job_of(pool, version, name)
        places = [place for place in queue_of(job, version) if place.arm is Arm.strategy]
        with pool.ctx.store.begin() as s:
            amounts = {row.task_id: getattr(row, column) for row in s.query(Prediction).all()}
            s.delete(rows.get(s, job.round.id))
        rest = [amounts[place.task_id] for place in places[QUERY:]]
        assert rest == sorted(rest, reverse=True)
        assert [place.score for place in places] == [amounts[place.task_id] for place in places]


def test_a_real_round_stores_both_uncertainties_and_the_label_they_are_of(world: World) -> None:
    populate(world)
    run_first_round(world)
    annotate_both_sides(world)
    assert rounds.run(world.ctx, rounds.open_now(world.ctx, PROJECT))
    with world.ctx.store.read() as s:
        kept = s.query(Prediction).all()
    assert kept
    for row in kept:
        assert row.score is not None and row.mutual_information is not None
        assert 0 <= row.mutual_information <= np.log(2) + 1e-6
        assert row.stratum in ("", "Lesion")
