"""Publication: what Label Studio serves is the queue, its arms are mixed as set, and nothing is published twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend import report, rounds
from backend.errors import QueueMismatch
from backend.rounds import publish_queue
from backend.store import projects
from backend.tables import Arm
from tests.backend.conftest import World
from tests.backend.test_rounds import (
    PROJECT,
    annotate_both_sides,
    in_full,
    populate,
    queue_ids,
    run_first_round,
)


def test_the_queue_ranks_by_score_and_mixes_its_arms(world: World) -> None:
    world = replace(
        world, ctx=replace(world.ctx, settings=world.ctx.settings.model_copy(update={"strategy": "entropy"}))
    )
    populate(world, 40)
    run_first_round(world)
    annotate_both_sides(world)
    assert rounds.run(world.ctx, rounds.open_now(world.ctx, PROJECT))
    queue = report.queue_of(world.ctx, PROJECT)
    scores = [row["score"] for row in queue if row["arm"] == "strategy"]
    assert scores == sorted(scores, reverse=True)
    assert {row["arm"] for row in queue} == {"strategy", "random"}
    for task_id in range(41, 61):
        world.label_studio.add_task(task_id)
    world.pull()
    assert rounds.run(world.ctx, rounds.open_now(world.ctx, PROJECT))
    queue = report.queue_of(world.ctx, PROJECT)
    with world.ctx.store.read() as s:
        held_out = {task.id for task in projects.unlabelled_tasks(s, PROJECT) if task.held_out}
    assert {row["task_id"] for row in queue if row["arm"] == "held_out"} == held_out
    assert held_out


def test_a_planted_shuffle_is_noticed(world: World) -> None:
    populate(world)
    world.label_studio.shuffled = True
    round_id = rounds.open_now(world.ctx, PROJECT)
    with pytest.raises(QueueMismatch, match="place 0"):
        rounds.run(world.ctx, round_id)
    assert in_full(world, round_id)["status"] == "failed"
    assert world.project.published_version is None


def test_a_queue_that_is_not_served_leaves_the_last_one_in_place(world: World) -> None:
    populate(world)
    run_first_round(world)
    before, queue = world.project.published_version, queue_ids(world)
    world.label_studio.shuffled = True
    with pytest.raises(QueueMismatch):
        rounds.run(world.ctx, rounds.open_now(world.ctx, PROJECT))
    world.label_studio.shuffled = False
    assert world.label_studio.settings["model_version"] == before == world.project.published_version
    assert world.label_studio.served_order(PROJECT) == queue == queue_ids(world)


@pytest.mark.parametrize(
    ("served", "differs"),
    [
        ([1, 2, 3, 4], False),
        ([2, 4], False),  # two were annotated meanwhile
        ([1, 2, 9, 3, 4], False),  # one was imported meanwhile
        ([1, 3, 2, 4], True),
        ([4, 3, 2, 1], True),
        ([], True),
        ([9], True),
    ],
)
def test_the_comparison_tells_a_change_of_order_from_work_going_on(served: list[int], differs: bool) -> None:
    assert (publish_queue.differs([1, 2, 3, 4], served, waiting=[1, 2, 3, 4]) is not None) == differs


def test_the_last_tasks_answered_during_a_publication_are_no_difference() -> None:
    assert publish_queue.differs([1, 2], [], waiting=[]) is None
    assert publish_queue.differs([1, 2], [9], waiting=[9]) is None


def test_arms_are_words_that_the_database_knows(world: World) -> None:
    populate(world)
    run_first_round(world)
    assert {row["arm"] for row in report.queue_of(world.ctx, PROJECT)} <= {arm.value for arm in Arm}
