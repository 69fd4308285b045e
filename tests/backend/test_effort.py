"""The effort ledger: what annotations cost and what their pre-annotations were worth, each compared once a state."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backend import effort
from backend.label_studio.errors import LabelStudioUnreachable, MaskSizeMismatch
from backend.label_studio.payloads import parse_label_config, regions
from backend.store import annotations, efforts, predictions
from backend.tables import Arm, Effort, Publication, Query, Round
from tests.backend import rows
from tests.backend.conftest import World
from tests.backend.fakes import SIDE

PROJECT = 1
N_TASKS = 6
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)
pair = st.tuples(*[arrays(bool, (3, 4)) for _ in range(2)])


def square(top: int, size: int = 10) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[top : top + size, 5 : 5 + size] = True
    return mask


def drawn(world: World, **masks: np.ndarray) -> list[dict[str, Any]]:
    return regions(parse_label_config(world.label_studio.label_config), masks, {})


def publish(world: World, number: int, *, version: int = 1, **masks: np.ndarray) -> None:
    """What a round leaves behind that has shown the same masks on every task; version 0: there was no model."""
    world.pass_time(minutes=10)
    name, now = f"wardround-r{number}-v{version}", world.ctx.now()
    shown = drawn(world, **masks)
    tasks = sorted(world.label_studio.task_rows)
    with world.ctx.store.begin() as s:
        if version:
            s.add(rows.version(id=version, number=version))
        s.add(rows.a_round(id=100 + number, number=number, published_version=name, opened_at=now, finished_at=now))
        s.flush()
        for rank, task_id in enumerate(tasks):
            s.add(Query(round_id=100 + number, rank=rank, task_id=task_id, arm=Arm.strategy))
            if version:
                text = orjson.dumps(shown).decode()
                s.add(rows.prediction(task_id=task_id, model_version_id=version, regions_json=text))
    items = [{"task": task_id, "model_version": name, "result": shown, "score": 0.5} for task_id in tasks]
    world.label_studio.import_predictions(PROJECT, items)
    world.label_studio.update_project(PROJECT, model_version=name)
    world.pass_time(minutes=10)
    world.label_studio.clock = world.ctx.now()  # ours and Label Studio's clock agree


def answer(world: World, annotation_id: int, task_id: int, *, parent: int | None = None, **changed: Any) -> None:
    world.label_studio.annotate(annotation_id, task_id, parent_prediction=parent, **changed)
    world.pull()


def accept(world: World, annotation_id: int, task_id: int, **changed: Any) -> None:
    """Submit the pre-annotation as it is shown."""
    shown = world.label_studio.prediction_id(task_id)
    result = world.label_studio.prediction(shown)["result"]
    answer(world, annotation_id, task_id, parent=shown, regions=result, **changed)


def measured(world: World) -> dict[int, Effort]:
    with world.ctx.store.read() as s:
        return {row.annotation_id: row for row in s.query(Effort)}


@pytest.fixture
def started(world: World) -> World:
    """A project whose round 1 shows a square on each of its tasks, drawn by version 1."""
    for task_id in range(1, N_TASKS + 1):
        world.label_studio.add_task(task_id)
    world.pull()
    publish(world, 1, Lesion=square(5))
    return world


# ------------------------------------------------------------------------------------------------------------ Dice


@given(pair, pair)
def test_dice_is_symmetric_and_one_exactly_where_nothing_was_changed(one: Any, other: Any) -> None:
    before, after = ({"a": masks[0], "b": masks[1]} for masks in (one, other))
    dice = effort.compare(before, after)
    assert dice == effort.compare(after, before)
    assert all(0 <= value <= 1 for value in dice.values())
    assert set(dice) == {label for label in before if before[label].any() or after[label].any()}
    for label, value in dice.items():
        assert (value == 1) == np.array_equal(before[label], after[label])


def test_a_label_of_one_side_alone_counts_and_one_of_neither_does_not() -> None:
    empty = np.zeros((SIDE, SIDE), dtype=bool)
    before, after = {"a": square(5), "b": empty}, {"c": square(5), "b": empty}
    assert effort.compare(before, after) == {"a": 0.0, "c": 0.0}


def test_masks_of_two_sizes_are_not_compared() -> None:
    with pytest.raises(MaskSizeMismatch):
        effort.compare({"a": np.zeros((2, 3), dtype=bool)}, {"a": np.zeros((3, 2), dtype=bool)})


# ------------------------------------------------------------------------------------------------------ the ledger


def test_accepted_corrected_and_drawn_from_nothing_are_told_apart(started: World) -> None:
    accept(started, 11, 1)
    shown = started.label_studio.prediction_id(2)
    answer(started, 12, 2, parent=shown, mask=square(10))
    answer(started, 13, 3, mask=square(5))
    assert effort.measure(started.ctx, PROJECT) == 3
    found = measured(started)
    assert (found[11].accepted, found[11].dice) == (True, {"Lesion": 1.0})
    assert (found[12].accepted, found[12].dice) == (False, {"Lesion": 0.5})
    assert (found[13].accepted, found[13].dice) == (None, None), "the same mask, but drawn by hand"
    assert {row.round_id for row in found.values()} == {101}
    assert [found[key].model_version_id for key in (11, 12, 13)] == [1, 1, None]


def test_an_annotation_is_compared_once_and_again_when_it_was_edited(started: World) -> None:
    accept(started, 11, 1)
    assert effort.measure(started.ctx, PROJECT) == 1
    before = measured(started)[11]
    started.pull()
    assert effort.measure(started.ctx, PROJECT) == 0
    assert measured(started)[11].measured_at == before.measured_at
    answer(started, 11, 1, parent=started.label_studio.prediction_id(1), mask=square(10))
    assert effort.measure(started.ctx, PROJECT) == 1
    after = measured(started)[11]
    assert (after.accepted, after.dice) == (False, {"Lesion": 0.5})
    assert after.updated_at > before.updated_at


@on_sqlite
def test_an_older_state_never_replaces_a_newer_one(started: World) -> None:
    accept(started, 11, 1)
    effort.measure(started.ctx, PROJECT)
    row = measured(started)[11]
    stale = {"annotation_id": 11, "updated_at": rows.NOW, "accepted": False, "dice": {}, "measured_at": rows.NOW}
    with started.ctx.store.begin() as s:
        efforts.save(s, [stale | {"round_id": None, "model_version_id": None}])
    assert measured(started)[11].updated_at == row.updated_at
    assert measured(started)[11].accepted is True


@on_sqlite
def test_it_goes_in_pieces_and_what_was_done_before_label_studio_went_away_is_kept(
    started: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effort, "_BATCH", 1)
    for task_id in (1, 2, 3):
        accept(started, 10 + task_id, task_id)
    assert effort.measure(started.ctx, PROJECT, limit=1) == 1
    real = started.label_studio.prediction

    def goes_away(prediction_id: int) -> dict[str, Any]:
        started.label_studio.down = bool(len(measured(started)) == 2)
        return real(prediction_id)

    monkeypatch.setattr(started.label_studio, "prediction", goes_away)
    with pytest.raises(LabelStudioUnreachable):
        effort.measure(started.ctx, PROJECT)
    assert set(measured(started)) == {11, 12}
    started.label_studio.down = False
    monkeypatch.undo()
    assert effort.measure(started.ctx, PROJECT) == 1
    assert effort.summary(started.ctx, PROJECT)["waiting"] == 0


def test_what_a_person_took_back_or_skipped_is_not_counted(started: World) -> None:
    for task_id in (1, 2, 3):
        accept(started, 10 + task_id, task_id)
    answer(started, 14, 4, skipped=True)
    effort.measure(started.ctx, PROJECT)
    assert set(measured(started)) == {11, 12, 13}
    answer(started, 12, 2, skipped=True)
    with started.ctx.store.begin() as s:
        annotations.mark_deleted(s, PROJECT, [11], started.ctx.now())
    assert effort.measure(started.ctx, PROJECT) == 0
    total = effort.summary(started.ctx, PROJECT)["total"]
    assert (total["n"], total["n_with"], total["share_accepted"]) == (1, 1, 1.0)


@on_sqlite
def test_before_there_is_a_model_everything_starts_from_nothing(world: World) -> None:
    world.label_studio.add_task(1)
    world.pull()
    publish(world, 0, version=0)
    accept(world, 11, 1)  # an empty place in the queue is what the editor names as parent
    effort.measure(world.ctx, PROJECT)
    row = measured(world)[11]
    assert (row.accepted, row.dice, row.model_version_id, row.round_id) == (None, None, None, 100)


@on_sqlite
def test_an_empty_mask_that_the_model_gave_is_a_pre_annotation(world: World) -> None:
    for task_id in (1, 2):
        world.label_studio.add_task(task_id)
    world.pull()
    publish(world, 1)
    accept(world, 11, 1)
    answer(world, 12, 2, parent=world.label_studio.prediction_id(2))
    effort.measure(world.ctx, PROJECT)
    found = measured(world)
    assert (found[11].accepted, found[11].dice) == (True, {})
    assert (found[12].accepted, found[12].dice) == (False, {"Lesion": 0.0})


# -------------------------------------------------------------------------------------- which pre-annotation it was


@on_sqlite
def test_an_annotation_begun_before_a_publication_belongs_to_the_one_it_was_shown(started: World) -> None:
    shown = started.label_studio.prediction_id(1)
    publish(started, 2, version=2, Lesion=square(20))
    answer(started, 11, 1, parent=shown, mask=square(5))
    accept(started, 12, 2)
    effort.measure(started.ctx, PROJECT)
    found = measured(started)
    assert (found[11].round_id, found[11].model_version_id, found[11].accepted) == (101, 1, True)
    assert (found[12].round_id, found[12].model_version_id, found[12].accepted) == (102, 2, True)


@on_sqlite
def test_once_label_studio_has_forgotten_it_our_own_copy_of_that_time_is_taken(started: World) -> None:
    accept(started, 11, 1)
    publish(started, 2, version=2, Lesion=square(20))
    started.label_studio.delete_model_version(PROJECT, "wardround-r1-v1")
    effort.measure(started.ctx, PROJECT)
    row = measured(started)[11]
    assert (row.round_id, row.model_version_id, row.accepted) == (101, 1, True)


@on_sqlite
def test_what_was_published_under_a_second_name_by_a_round_that_is_about_to_end_is_its_own(started: World) -> None:
    name = "wardround-r1.2-v1"
    with started.ctx.store.begin() as s:
        s.get_one(Round, 101).published_version = None
        s.add(Publication(round_id=101, name=name, attempt=2))
    again = started.label_studio.imported[0] | {"model_version": name}
    started.label_studio.import_predictions(PROJECT, [again])
    started.label_studio.update_project(PROJECT, model_version=name)
    accept(started, 11, 1)
    effort.measure(started.ctx, PROJECT)
    row = measured(started)[11]
    assert (row.round_id, row.model_version_id, row.accepted) == (101, 1, True)


@on_sqlite
def test_a_draft_submitted_without_its_parent_is_known_by_its_regions(started: World) -> None:
    result = [region | {"origin": "prediction"} for region in drawn(started, Lesion=square(5))]
    answer(started, 11, 1, regions=result)
    answer(started, 12, 2, regions=[region | {"origin": "manual"} for region in result])
    effort.measure(started.ctx, PROJECT)
    found = measured(started)
    assert (found[11].accepted, found[11].model_version_id) == (True, 1)
    assert found[12].accepted is None


@on_sqlite
def test_a_pre_annotation_that_nobody_has_any_more_is_said_to_be_unknown(started: World) -> None:
    accept(started, 11, 1)
    started.label_studio.delete_model_version(PROJECT, "wardround-r1-v1")
    with started.ctx.store.begin() as s:
        for row in predictions.of_tasks(s, 1, [1]).values():
            s.delete(row)
    effort.measure(started.ctx, PROJECT)
    assert (measured(started)[11].accepted, measured(started)[11].dice) == (None, {})
    assert effort.measure(started.ctx, PROJECT) == 0, "it is not asked for again for ever"
    total = effort.summary(started.ctx, PROJECT)["total"]
    assert (total["n"], total["n_with"], total["n_compared"], total["share_accepted"]) == (1, 1, 0, None)


@on_sqlite
def test_one_that_cannot_be_compared_stops_no_other(started: World) -> None:
    accept(started, 11, 1)
    broken = started.label_studio.imported[started.label_studio.prediction_id(1) - 1]
    broken["result"] = [broken["result"][0] | {"original_width": SIDE + 1}]
    accept(started, 12, 2)
    assert effort.measure(started.ctx, PROJECT) == 2
    found = measured(started)
    assert (found[11].accepted, found[11].dice) == (None, {})
    assert found[12].accepted is True
