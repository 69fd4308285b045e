"""What the order of the answers says: laws that hold for people at work, and for tasks served at random."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest

from backend.context import Context
from backend.doctor import order
from backend.store import answers, projects
from backend.store.answers import Answered
from backend.tables import Arm, Query
from tests.backend import rows
from tests.backend.conftest import World

N_TASKS = 200


def served(n_people: int, rng: np.random.Generator, n_stuck: int = 0) -> list[Answered]:
    """Answers of people who work down a queue side by side; `n_stuck` of its tasks nobody ever answers."""
    waiting = list(range(N_TASKS))
    for at in sorted(rng.choice(20, n_stuck, replace=False), reverse=True):
        del waiting[at]
    held = {person: waiting.pop(0) for person in range(n_people)}
    done = []
    while waiting:
        person = int(rng.integers(n_people))
        done.append(Answered(held[person], person))
        held[person] = waiting.pop(0)
    return done


@pytest.mark.parametrize("n_people", [1, 2, 5, 12])
@pytest.mark.parametrize("n_stuck", [0, 8])
def test_people_who_work_down_the_queue_stay_near_its_top(n_people: int, n_stuck: int) -> None:
    done = served(n_people, np.random.default_rng(n_people), n_stuck)
    for end in range(len(done)):
        place = order.usual_place(done[:end])
        assert place is None or place <= n_stuck + 2 * n_people


def test_tasks_served_at_random_come_from_the_middle() -> None:
    for seed in range(20):
        ranks = np.random.default_rng(seed).permutation(N_TASKS)[:40]
        place = order.usual_place([Answered(int(rank), 1) for rank in ranks])
        assert place is not None and 30 < place < 150


def test_the_place_is_counted_among_the_tasks_that_waited() -> None:
    """Against counting one by one, each answer anew."""
    ranks = [int(rank) for rank in np.random.default_rng(7).permutation(N_TASKS)[:40]]
    waited = [sum(rank < one and rank not in ranks[:at] for rank in range(N_TASKS)) for at, one in enumerate(ranks)]
    assert order.usual_place([Answered(rank, 1) for rank in ranks]) == median(waited[-12:])


def test_a_task_that_was_open_before_the_queue_says_nothing() -> None:
    open_before = [Answered(100 + person, person) for person in range(20)]
    assert order.usual_place(open_before) is None
    assert order.usual_place([*open_before, *(Answered(rank, 3) for rank in range(8))]) == 0


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_only_first_answers_that_are_alive_count_in_their_order(world: World) -> None:
    ctx: Context = world.ctx
    later = [rows.NOW.replace(minute=minute) for minute in range(5)]
    with ctx.store.begin() as s:
        projects.save(s, rows.project())
        s.add_all([rows.task(id=task_id) for task_id in (1, 2, 3)])
        s.add(rows.a_round(id=1))
        s.flush()
        s.add_all([Query(round_id=1, rank=rank, task_id=3 - rank, arm=Arm.strategy) for rank in range(3)])
        s.add(rows.annotation(id=1, task_id=1, completed_by=7, created_at=later[3]))
        s.add(rows.annotation(id=2, task_id=2, completed_by=8, created_at=later[1]))
        s.add(rows.annotation(id=3, task_id=2, completed_by=9, created_at=later[2]))
        s.add(rows.annotation(id=4, task_id=3, completed_by=7, created_at=later[0], deleted_at=later[4]))
    with ctx.store.read() as s:
        assert answers.of_queue(s, 1) == [Answered(1, 8), Answered(2, 7)]
