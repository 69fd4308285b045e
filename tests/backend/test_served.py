"""What Label Studio serves is held against what was published: a difference is said at once, and not undone."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from backend import report, rounds
from backend.rounds import served
from backend.rounds.served import gaps
from backend.store import figures, projects
from tests.backend.conftest import World
from tests.backend.publishing import predict, ready
from tests.backend.test_rounds import PROJECT, populate, queue_ids

on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)
N_TASKS = 30


@pytest.fixture
def published(world: World) -> World:
    populate(world, N_TASKS)
    assert rounds.run(world.ctx, ready(world, predict(world, range(1, N_TASKS + 1))))
    assert rounds.watch_served(world.ctx, PROJECT) is None
    return world


def look(world: World) -> str | None:
    """As a reconciliation does; the words it leaves."""
    world.pull()
    rounds.repair(world.ctx, PROJECT)
    assert rounds.watch_served(world.ctx, PROJECT) == world.project.queue_problem
    return world.project.queue_problem


def gauge(world: World) -> float:
    with world.ctx.store.read() as s:
        found = figures.gauges(s, lease_seconds=60, now=world.ctx.now())
    return next(one for one in found if one.name == "wardround_queue_problem").samples[0][1]


@on_sqlite
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model_version": "somebody else's"}, 'model_version is "somebody else\'s"'),
        ({"model_version": "wardround-r9-v9"}, "model_version is 'wardround-r9-v9'"),
        ({"model_version": ""}, "model_version is ''"),
        ({"sampling": "Sequential sampling"}, "sampling is 'Sequential sampling'"),
        ({"show_collab_predictions": False}, "show_collab_predictions is False"),
    ],
)
def test_a_drifted_setting_is_said_and_not_undone(
    published: World, caplog: pytest.LogCaptureFixture, changed: dict[str, Any], words: str
) -> None:
    settings = dict(published.label_studio.settings)
    published.label_studio.settings |= changed
    with caplog.at_level(logging.INFO, "backend.rounds.served"):
        for _ in range(3):
            assert words in str(look(published))
        assert [record.levelname for record in caplog.records] == ["ERROR"], "once"
        assert published.label_studio.settings == settings | changed
        assert gauge(published) == 1
        shown = report.status(published.ctx)
        assert words in str(shown["projects"][0]["queue_problem"]) and words in report.status_in_words(shown)
        published.label_studio.settings = settings
        assert look(published) is None
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert gauge(published) == 0
    assert "NOT SERVED" not in report.status_in_words(report.status(published.ctx))


def test_a_planted_shuffle_is_noticed_by_the_next_reconciliation(published: World) -> None:
    published.label_studio.shuffled = True
    assert "place 0" in str(look(published))
    published.label_studio.shuffled = False
    assert look(published) is None


@on_sqlite
@pytest.mark.parametrize(("place", "to"), [(0, 0.999), (3, 0.7), (20, 0.001), (29, 0.5), (7, 0.4)])
def test_one_task_out_of_its_place_is_noticed(published: World, place: int, to: float) -> None:
    task_id = queue_ids(published)[place]
    (found,) = [item for item in published.label_studio.predictions if item["task"] == task_id]
    found["score"] = to
    assert look(published)


@on_sqlite
def test_a_prediction_that_somebody_deleted_is_noticed(published: World) -> None:
    """Its task would be served last, and at random."""
    fake, lost = published.label_studio, queue_ids(published)[4]
    fake.predictions = [item for item in fake.predictions if item["task"] != lost]
    assert f"the first is task {lost}" in str(look(published))


@on_sqlite
def test_what_was_answered_or_deleted_does_not_have_the_whole_order_read(
    published: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading all of it takes Label Studio a minute at fifty thousand tasks, and people answer all day."""
    monkeypatch.setattr(served, "differs", lambda *_: pytest.fail("the whole order was read"))
    fake, (first, _, middle, _, gone, *_) = published.label_studio, queue_ids(published)
    for task_id in (first, middle):
        fake.annotate(task_id, task_id)
    del fake.task_rows[gone]
    fake.predictions = [item for item in fake.predictions if item["task"] != gone]
    with published.ctx.store.begin() as s:
        projects.mark_tasks_deleted(s, [gone], published.ctx.now())
    assert look(published) is None


@on_sqlite
def test_a_task_far_down_is_noticed_once_its_slice_comes_by(published: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "_HEAD", 5)
    monkeypatch.setattr(served, "_SLICE", 10)
    fake = published.label_studio
    read: list[int] = []
    page = fake.served_page

    def counted(project_id: int, number: int, size: int) -> tuple[list[int], int]:
        read.append(size)
        return page(project_id, number, size)

    fake.served_page = counted  # type: ignore[method-assign, assignment]
    for _ in range(4):
        assert look(published) is None
        published.pass_time(1)
    assert set(read) == {5, 10}
    (found,) = [item for item in fake.predictions if item["task"] == queue_ids(published)[22]]
    found["score"] = 0.6
    seen = []
    for _ in range(3):
        seen.append(look(published))
        published.pass_time(1)
    assert any(seen)


@on_sqlite
def test_work_going_on_is_no_difference(published: World) -> None:
    fake, queue = published.label_studio, queue_ids(published)
    for task_id in queue[0:9:2]:
        fake.annotate(100 + task_id, task_id)
    for task_id in (90, 91):
        fake.add_task(task_id)
        fake.import_predictions(PROJECT, [fake.predictions[0] | {"task": task_id, "score": 0.3}])
    assert look(published) is None
    for task_id in queue:
        fake.annotate(100 + task_id, task_id)
    assert look(published) is None


@on_sqlite
def test_an_answer_that_we_have_not_heard_of_is_no_difference(published: World) -> None:
    """It came between the pull and the look."""
    for task_id in queue_ids(published)[2:5]:
        published.label_studio.annotate(100 + task_id, task_id)
    assert rounds.watch_served(published.ctx, PROJECT) is None


@on_sqlite
def test_nothing_is_compared_before_the_first_publication_and_while_one_is_under_way(world: World) -> None:
    populate(world, 5)
    assert look(world) is None
    version = predict(world, range(1, 6))
    assert rounds.run(world.ctx, ready(world, version))
    ready(world, version)
    world.label_studio.settings["model_version"] = "wardround-r1-v1"
    assert look(world) is None


@pytest.mark.parametrize(
    ("stretch", "top", "suspicious"),
    [
        ([1, 2, 3], True, False),
        ([2, 3], True, True),  # 1 waits, and is not where it belongs
        ([2, 3], False, False),
        ([3, 5], False, True),
        ([3, 9, 4], False, False),
        ([4, 3], False, True),
        ([], True, True),
        ([], False, False),
        ([1, 2, 4], True, False),  # 3 was answered
    ],
)
def test_a_stretch_of_the_order_looks_right_or_not(stretch: list[int], top: bool, suspicious: bool) -> None:
    waiting = {1, 2, 4, 5, 6} if stretch == [1, 2, 4] else {1, 2, 3, 4, 5, 6}
    queue = [1, 2, 3, 4, 5, 6]

    def waiting_between(first: int, last: int | None) -> list[int]:
        return [task_id for task_id in queue[first : None if last is None else last + 1] if task_id in waiting]

    places = {task_id: place for place, task_id in enumerate(queue)}
    assert gaps(places, stretch, waiting_between, from_the_top=top) is suspicious
