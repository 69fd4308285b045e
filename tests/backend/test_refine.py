"""Around the cut many draws decide the order; everywhere else, and in the set of scores, nothing changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

import strategies
from backend import predictions as journey
from backend import rounds
from backend.prompts import prompts_for
from backend.rounds.refine import Scored, around_the_cut
from backend.store import predictions, projects
from backend.tables import Task
from tests.backend.conftest import World
from tests.backend.test_predictions import PROJECT, ask
from tests.backend.test_rounds import annotate_both_sides, populate, run_first_round


@pytest.mark.parametrize(
    ("n", "size", "start", "ranks"),
    [
        (10, 4, 2, [2, 3, 4, 5]),
        (10, 1, 0, [0, 1]),
        (10, 9, 4, [4, 5, 6, 7, 8, 9]),
        (10, 10, 0, []),
        (0, 4, 0, []),
    ],
)
def test_the_neighbourhood_of_the_cut_is_half_a_query_to_either_side(n, size, start, ranks) -> None:
    # Equal scores: the lower id ranks first.
    scored = [Scored(Task(id=100 + rank), score=float(-(rank // 2))) for rank in range(n)]
    found_start, near = around_the_cut(scored[::-1], size)
    assert found_start == start
    assert [one.task.id - 100 for one in near] == ranks


def trained(world: World, max_draws: int) -> World:
    """The world after a round that trained, with as many draws near the cut as asked for."""
    settings = world.ctx.settings.model_copy(update={"max_draws": max_draws})
    world = replace(world, ctx=replace(world.ctx, settings=settings))
    populate(world)
    run_first_round(world)
    annotate_both_sides(world)
    assert rounds.run(world.ctx, rounds.open_now(world.ctx, PROJECT))
    return world


def pool_scores(world: World) -> dict[int, float]:
    version = world.ctx.serving.version(PROJECT)
    assert version is not None
    with world.ctx.store.read() as s:
        tasks = [task for task in projects.unlabelled_tasks(s, PROJECT) if not task.held_out]
        rows = predictions.of_tasks(s, version.id, [task.id for task in tasks])
    return {task_id: row.score for task_id, row in rows.items() if row.score is not None}


def fresh_scores(world: World, task_ids: list[int], n_draws: int) -> dict[int, float]:
    """What the model says of each image alone, asked directly."""
    version = world.ctx.serving.version(PROJECT)
    assert version is not None
    segmenter = world.ctx.serving.load(version).segmenter
    with world.ctx.store.read() as s:
        tasks, project = projects.tasks(s, task_ids), projects.get(s, PROJECT)
    score = strategies.get("entropy").score
    found = {}
    for task_id, task in tasks.items():
        image = world.ctx.files.image(task.image_sha256 or "")
        [prompt] = prompts_for(project, task)
        found[task_id] = score(segmenter.segment(image, prompt, n_draws, journey.seed_of(version)).draws)
    return found


def test_near_the_cut_the_order_is_that_of_many_draws_and_scores_stay_among_themselves(world: World) -> None:
    world = trained(world, max_draws=12)
    stored = pool_scores(world)
    few = fresh_scores(world, list(stored), 2)
    assert sorted(stored.values()) == pytest.approx(sorted(few.values()), abs=1e-5)
    ranking = sorted(few, key=lambda task_id: (-few[task_id], task_id))
    size = world.ctx.settings.annotations_per_round
    start, near = around_the_cut([Scored(Task(id=t), s) for t, s in few.items()], size)
    ids = [one.task.id for one in near]
    assert ids
    far = [task_id for task_id in stored if task_id not in ids]
    assert [stored[task_id] for task_id in far] == pytest.approx([few[task_id] for task_id in far], abs=1e-5)
    many = fresh_scores(world, ids, 12)
    n_in = size - start
    wanted = set(sorted(ids, key=lambda t: -many[t])[:n_in])
    got = set(sorted(ids, key=lambda t: -stored[t])[:n_in])
    assert got == wanted
    assert set(ranking[:start]) | got == set(sorted(stored, key=lambda t: -stored[t])[:size])


def test_with_no_more_draws_than_all_get_nothing_is_dealt_anew(world: World) -> None:
    world = trained(world, max_draws=2)
    stored = pool_scores(world)
    assert stored == pytest.approx(fresh_scores(world, list(stored), 2), abs=1e-5)


def test_an_answer_on_request_takes_one_pass_and_the_next_round_ranks_it(world: World) -> None:
    world = trained(world, max_draws=2)
    world.label_studio.add_task(90)
    world.pull()
    ask(world, 90)
    assert 90 not in pool_scores(world)
    version = world.ctx.serving.version(PROJECT)
    assert version is not None
    with world.ctx.store.read() as s:
        assert [task.id for task in predictions.tasks_without(s, PROJECT, version.id)] == [90]
        before = predictions.of_tasks(s, version.id, [90])[90].regions_json
    assert before
    with world.ctx.store.read() as s:
        project, task = projects.get(s, PROJECT), projects.task(s, 90)
    journey.compute(world.ctx, project, world.ctx.serving.load(version), [task])
    scores = pool_scores(world)
    assert 90 in scores and scores[90] == pytest.approx(fresh_scores(world, [90], 2)[90], abs=1e-5)
