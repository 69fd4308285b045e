"""Journey 2: whatever order events come in, the same rows are left, and nothing a person did is lost."""

import random
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from backend import annotations
from backend.label_studio.payloads import Event
from backend.store import annotations as rows
from backend.store import projects
from backend.tables import Annotation, Mask, Round, Task
from tests.backend.conftest import World
from tests.backend.fakes import SIDE, true_mask
from tests.backend.rows import NOW, a_round, annotation, task
from tests.backend.test_consensus import select_a_round

PROJECT = 1


def event(world: World, *found: Any, deleted: list[int] | None = None) -> Event:
    tasks = [world.label_studio.task_rows[one.task_id] for one in found]
    return Event("ANNOTATION_UPDATED", PROJECT, list(found), tasks, deleted or [])


def usable(world: World) -> dict[int, tuple[int, dict[str, str]]]:
    """Task id → annotation id and masks, as a round would select them."""
    with world.ctx.store.read() as s:
        return {task.id: (annotation.id, masks) for annotation, task, masks in rows.usable(s, PROJECT)}


def stored(world: World, annotation_id: int) -> Annotation:
    with world.ctx.store.read() as s:
        row = s.get(Annotation, annotation_id)
    assert row is not None
    return row


def test_an_annotation_arrives_with_its_mask_and_its_circumstances(world: World) -> None:
    world.label_studio.add_task(5, group="patient 1")
    annotations.receive(world.ctx, event(world, world.label_studio.annotate(9, 5, parent_prediction=77)))
    row = stored(world, 9)
    assert (row.task_id, row.completed_by, row.lead_time_seconds, row.parent_prediction) == (5, 7, 12.5, 77)
    (annotation_id, masks) = usable(world)[5]
    assert annotation_id == 9

    with Image.open(world.ctx.files.path("masks", masks["Lesion"])) as image:
        assert np.array_equal(np.asarray(image), true_mask(5))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.randoms(use_true_random=False), doubled=st.booleans(), delete=st.booleans())
def test_any_order_of_events_leaves_the_same_rows(
    world: World, order: random.Random, doubled: bool, delete: bool
) -> None:
    _forget_everything(world)
    fake = world.label_studio
    fake.add_task(1)
    fake.add_task(2)
    empty = np.zeros((SIDE, SIDE), dtype=bool)
    events = [
        event(world, fake.annotate(1, 1)),
        event(world, fake.annotate(1, 1, mask=~true_mask(1))),
        event(world, fake.annotate(2, 2)),
        event(world, fake.annotate(2, 2, mask=empty)),
    ]
    if delete:
        events.append(event(world, deleted=[1]))
    events *= 2 if doubled else 1
    order.shuffle(events)
    for one in events:
        annotations.receive(world.ctx, one)
    found = usable(world)
    assert found.get(2) == (2, {})
    expected = None if delete else (1, {"Lesion": world.ctx.files.put_mask(~true_mask(1))})
    assert found.get(1) == expected


def _forget_everything(world: World) -> None:
    with world.ctx.store.begin() as s:
        for table in (Mask, Annotation, Task):
            s.query(table).delete()
    world.label_studio.annotations.clear()
    world.label_studio.task_rows.clear()


def test_a_pull_finds_what_webhooks_lost(world: World) -> None:
    fake = world.label_studio
    for task_id in (1, 2, 3):
        fake.add_task(task_id)
    fake.annotate(1, 1)
    fake.annotate(2, 2)
    world.pull()
    assert set(usable(world)) == {1, 2}
    world.pass_time(minutes=2)
    fake.delete_annotation(1)
    fake.annotate(2, 2, mask=~true_mask(2))
    fake.annotate(3, 3, skipped=True)
    del fake.task_rows[3]
    fake.add_task(4)
    world.pull()
    assert usable(world) == {2: (2, {"Lesion": world.ctx.files.put_mask(~true_mask(2))})}
    with world.ctx.store.read() as s:
        assert [task.id for task in projects.all_tasks(s, PROJECT)] == [1, 2, 4]


def test_what_a_webhook_has_just_brought_is_not_taken_for_deleted(
    world: World,
) -> None:
    """The webhook may be faster than what a pull can read: a mark of deletion is for ever, so it waits."""
    fake = world.label_studio
    fake.add_task(1)
    world.pull()
    found = fake.annotate(1, 1)
    annotations.receive(world.ctx, event(world, found))
    fake.add_task(2)
    annotations.receive(world.ctx, Event("TASKS_CREATED", PROJECT, tasks=[fake.task_rows[2]]))
    late, unseen = fake.annotations.pop(1), fake.task_rows.pop(2)
    world.pull()
    assert set(usable(world)) == {1}
    fake.annotations[1], fake.task_rows[2] = late, unseen
    for _ in range(10):
        world.pass_time(minutes=1)
        world.pull()
    assert set(usable(world)) == {1}
    with world.ctx.store.read() as s:
        assert [task.id for task in projects.all_tasks(s, PROJECT)] == [1, 2]


@pytest.mark.parametrize("minutes_between_pulls", [0.1, 1, 3, 600])
def test_a_deletion_whose_webhook_was_lost_is_found_however_often_pulls_come(
    world: World, minutes_between_pulls: float
) -> None:
    fake = world.label_studio
    for task_id in (1, 2):
        fake.add_task(task_id)
    world.pull()
    annotations.receive(world.ctx, event(world, fake.annotate(1, 1)))
    fake.delete_annotation(1)
    for number in range(max(2, round(2 / minutes_between_pulls))):
        fake.annotate(100 + number, 2)  # work goes on elsewhere, so the pulls move on
        world.pull()
        world.pass_time(minutes_between_pulls)
    world.pull()
    assert set(usable(world)) == {2}


def test_a_pull_and_a_webhook_of_the_same_change_are_one(world: World) -> None:
    world.label_studio.add_task(1)
    found = world.label_studio.annotate(1, 1)
    annotations.receive(world.ctx, event(world, found))
    received = stored(world, 1).received_at
    world.pull()
    assert stored(world, 1).received_at == received


def test_a_deleted_annotation_stays_in_the_table(world: World) -> None:
    world.label_studio.add_task(1)
    annotations.receive(world.ctx, event(world, world.label_studio.annotate(1, 1)))
    annotations.receive(world.ctx, event(world, deleted=[1]))
    assert stored(world, 1).deleted_at is not None
    assert stored(world, 1).lead_time_seconds == 12.5
    assert usable(world) == {}


def test_a_skip_is_remembered_and_takes_the_task_out_of_the_pool(world: World) -> None:
    world.label_studio.add_task(1)
    world.label_studio.add_task(2)
    world.label_studio.annotate(1, 1, skipped=True)
    world.pull()
    with world.ctx.store.read() as s:
        assert [task.id for task in projects.unlabelled_tasks(s, PROJECT)] == [2]
    assert usable(world) == {}
    assert stored(world, 1).skipped


def test_the_parent_survives_label_studio_forgetting_it(world: World) -> None:
    world.label_studio.add_task(1)
    annotations.receive(world.ctx, event(world, world.label_studio.annotate(1, 1, parent_prediction=77)))
    annotations.receive(world.ctx, event(world, world.label_studio.annotate(1, 1, parent_prediction=None)))
    assert stored(world, 1).parent_prediction == 77


@pytest.mark.parametrize("field", ["original_width", "rle"])
def test_a_mask_that_cannot_be_read_is_stored_with_its_problem(world: World, field: str) -> None:
    world.label_studio.add_task(1)
    found = world.label_studio.annotate(1, 1)
    region = dict(found.regions[0])
    if field == "rle":
        region["value"] = region["value"] | {"rle": region["value"]["rle"][:-3]}
    else:
        region["original_width"] = 2 * SIDE
    annotations.receive(world.ctx, event(world, replace(found, regions=[region])))
    assert stored(world, 1).problem
    assert usable(world) == {}
    annotations.receive(world.ctx, event(world, world.label_studio.annotate(1, 1)))
    assert stored(world, 1).problem is None
    assert set(usable(world)) == {1}


def test_events_of_a_project_that_is_not_connected_change_nothing(world: World) -> None:
    task = world.label_studio.add_task(1)
    found = world.label_studio.annotate(1, 1)
    strangers = replace(event(world, found), project_id=99, tasks=[replace(task, project_id=99)])
    assert not annotations.receive(world.ctx, strangers)
    with world.ctx.store.read() as s:
        assert s.get(Annotation, 1) is None


def test_an_unusable_label_config_does_not_replace_the_last_usable_one(world: World) -> None:
    before = world.project.label_config
    annotations.receive(world.ctx, Event("PROJECT_UPDATED", PROJECT, label_config="<View/>"))
    assert world.project.label_config == before
    renamed = before.replace("Lesion", "Nodule")
    annotations.receive(world.ctx, Event("PROJECT_UPDATED", PROJECT, label_config=renamed))
    assert world.project.label_config == renamed


def test_the_held_out_line_follows_the_group_and_never_moves(world: World) -> None:
    fake = world.label_studio
    for task_id in range(1, 61):
        fake.add_task(task_id, group=f"patient {task_id % 20}")
    world.pull()
    with world.ctx.store.read() as s:
        before = {task.id: (task.group_key, task.held_out) for task in projects.all_tasks(s, PROJECT)}
    sides = {group: {held for key, held in before.values() if key == group} for group, _ in before.values()}
    assert all(len(side) == 1 for side in sides.values())
    assert {True, False} == set().union(*sides.values())
    for task_id, known in fake.task_rows.items():
        fake.task_rows[task_id] = replace(known, data=known.data | {"group": "one for all"})
        fake.touched[task_id] = fake.tick()
    world.pull()
    with world.ctx.store.read() as s:
        assert {task.id: (task.group_key, task.held_out) for task in projects.all_tasks(s, PROJECT)} == before


def test_another_share_in_the_settings_moves_no_patient_across_the_line(world: World) -> None:
    fake = world.label_studio
    for task_id in range(1, 41):
        fake.add_task(task_id, group=f"patient {task_id % 20}")
    world.pull()
    for share in (0.05, 0.9):
        world.ctx = replace(world.ctx, settings=world.ctx.settings.model_copy(update={"held_out_share": share}))
        for task_id in range(len(fake.task_rows) + 1, len(fake.task_rows) + 41):
            fake.add_task(task_id, group=f"patient {task_id % 20}")
        world.pull()
    with world.ctx.store.read() as s:
        rows = projects.all_tasks(s, PROJECT)
    assert len(rows) == 120
    assert len({(task.group_key, task.held_out) for task in rows}) == 20


def test_the_held_out_share_is_met_over_many_groups() -> None:
    held = [annotations.is_held_out(f"patient {i}", 0.2) for i in range(20_000)]
    assert 0.19 < np.mean(held) < 0.21
    wider = [annotations.is_held_out(f"patient {i}", 0.3) for i in range(20_000)]
    # A larger share only adds groups: none that was held out is ever trained on.
    assert all(later for first, later in zip(held, wider, strict=True) if first)


# ------------------------------------------------------------------------------------------------------------ news


def news_of(world: World, since: Round | None, threshold: int = 1, slot: datetime | None = None) -> rows.News:
    with world.ctx.store.read() as s:
        return rows.news(s, PROJECT, since, threshold, slot)


@pytest.mark.parametrize("consensus", ["latest", "majority", "staple"])
def test_what_a_round_has_seen_is_no_news_whether_it_was_used_or_not(world: World, consensus: str) -> None:
    fake = world.label_studio
    for task_id in range(1, 7):
        fake.add_task(task_id, content=b"no image" if task_id == 6 else None)
        fake.annotate(10 + task_id, task_id, completed_by=1)
        wide = np.ones((SIDE, 2 * SIDE), dtype=bool) if task_id == 5 else None
        fake.annotate(20 + task_id, task_id, mask=wide, completed_by=1 + task_id % 2)
    world.pull()
    assert news_of(world, None).count == 12
    row = select_a_round(world, consensus=consensus)
    assert row.left_out and "6" in row.left_out
    assert news_of(world, row) == rows.News(0)
    world.pass_time(minutes=10)
    assert news_of(world, row) == rows.News(0)
    fake.annotate(21, 1, mask=~true_mask(1))
    fake.annotate(30, 5)
    world.pull()
    assert news_of(world, row).count == 2


def test_what_was_written_while_a_round_looked_is_news(world: World) -> None:
    """It was received before the round read, and committed after: by its time alone nobody would ever count it."""
    fake = world.label_studio
    fake.add_task(1)
    fake.add_task(2)
    annotations.receive(world.ctx, event(world, fake.annotate(1, 1)))
    before = world.ctx.now()
    world.pass_time(minutes=0.5)
    row = select_a_round(world)
    slow = replace(world.ctx, now=lambda: before)
    annotations.receive(slow, event(world, fake.annotate(2, 2), fake.annotate(3, 1)))
    assert news_of(world, row, threshold=2) == rows.News(2, before, before, 0)


def test_news_of_a_round_that_was_cancelled_before_it_looked_begins_with_its_end(world: World) -> None:
    fake = world.label_studio
    fake.add_task(1)
    annotations.receive(world.ctx, event(world, fake.annotate(1, 1)))
    cancelled = a_round(selected_at=None, finished_at=world.ctx.now())
    assert news_of(world, cancelled) == rows.News(0)
    annotations.receive(world.ctx, event(world, fake.annotate(2, 1)))
    assert news_of(world, cancelled).count == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    received=st.lists(st.tuples(st.integers(-200, 200), st.integers(0, 300), st.booleans()), max_size=12),
    threshold=st.integers(1, 6),
    slot=st.none() | st.integers(-200, 200),
    selected=st.none() | st.just(0),
)
def test_news_is_counted_as_one_would_by_hand(
    world: World, received: list[tuple[int, int, bool]], threshold: int, slot: int | None, selected: int | None
) -> None:
    _forget_everything(world)
    with world.ctx.store.begin() as s:
        s.add(task(image_sha256=None, prompt=None))
        s.flush()
        for number, (at, age, skipped) in enumerate(received, start=1):
            times = {"received_at": NOW + timedelta(seconds=at), "updated_at": NOW + timedelta(seconds=at - age)}
            s.add(annotation(id=number, skipped=skipped, **times))
    since = None if selected is None else a_round(id=77, selected_at=NOW + timedelta(seconds=selected))
    slot_at = None if slot is None else NOW + timedelta(seconds=slot)
    # Nothing was taken by that round, so what came within a minute of its looking it may have missed.
    new = sorted((at, age) for at, age, skipped in received if not skipped and (since is None or at > -60))
    arrivals = [NOW + timedelta(seconds=at) for at, _ in new]
    assert news_of(world, since, threshold, slot_at) == rows.News(
        len(new),
        arrivals[-1] if arrivals else None,
        arrivals[threshold - 1] if len(arrivals) >= threshold else None,
        sum(slot is not None and at - age <= slot for at, age in new),
    )
