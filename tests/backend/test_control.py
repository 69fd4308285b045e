"""What people do with rounds: cancelling one and bringing a model version back hold, whatever runs meanwhile."""

from __future__ import annotations

import threading

import pytest

from backend import report, rounds
from backend.errors import CannotRestore, NotFound, RoundFinished
from backend.rounds import machine
from backend.rounds.job import Job, Write
from backend.store import predictions
from backend.store import rounds as rows
from backend.tables import Lane, RoundStatus, Trigger, Verdict
from tests.backend.conftest import World
from tests.backend.test_rounds import PROJECT, annotate_both_sides, annotate_head, populate, queue_ids, run_first_round

# What differs between databases is not asked here, and each of these trains.
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


@pytest.fixture
def promoted(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two promoted versions, the second serving."""
    from backend.rounds import promote

    monkeypatch.setattr(promote, "decide", lambda **_: promote.Decision(Verdict.promoted, "by the test"))
    populate(world)
    run_first_round(world)
    annotate_both_sides(world)
    for _ in range(2):
        assert rounds.run(world.ctx, rounds.open_now(world.ctx, PROJECT))
        annotate_head(world, 2)
    assert serving(world) == 2
    return world


def serving(world: World) -> int | None:
    version = world.ctx.serving.version(PROJECT)
    return version.number if version else None


def status(world: World, round_id: int) -> RoundStatus:
    with world.ctx.store.read() as s:
        return rows.get(s, round_id).status


def test_a_cancelled_round_is_over_at_once_and_makes_room(world: World) -> None:
    populate(world)
    round_id = rounds.open_now(world.ctx, PROJECT)
    rounds.cancel(world.ctx, round_id)
    assert status(world, round_id) is RoundStatus.cancelled
    assert not rounds.run(world.ctx, round_id)
    assert rounds.resume_unclaimed(world.ctx) == []
    assert rounds.open_now(world.ctx, PROJECT) != round_id
    with pytest.raises(RoundFinished):
        rounds.cancel(world.ctx, round_id)
    with pytest.raises(NotFound):
        rounds.cancel(world.ctx, 4711)


def test_what_a_person_called_off_does_not_open_again_by_itself(world: World) -> None:
    populate(world)
    run_first_round(world)
    annotate_both_sides(world)
    round_id = rounds.open_if_due(world.ctx, PROJECT)
    assert round_id is not None
    rounds.cancel(world.ctx, round_id)
    world.pass_time(10)
    assert rounds.open_if_due(world.ctx, PROJECT) is None


@on_sqlite
@pytest.mark.parametrize("cancelled_at", list(machine.STEPS))
def test_a_round_cancelled_during_any_step_writes_nothing_more(
    promoted: World, monkeypatch: pytest.MonkeyPatch, cancelled_at: RoundStatus
) -> None:
    world, before = promoted, queue_ids(promoted)
    round_id = rounds.open_now(world.ctx, PROJECT)
    step = machine.STEPS[cancelled_at]

    def act(job: Job) -> Write:
        rounds.cancel(world.ctx, round_id)
        return step.act(job)

    monkeypatch.setitem(machine.STEPS, cancelled_at, machine.Step(act, step.lane))
    assert not rounds.run(world.ctx, round_id), "it ends without an error: somebody wanted it so"
    assert status(world, round_id) is RoundStatus.cancelled
    assert serving(world) == 2
    assert queue_ids(world) == before
    assert world.label_studio.settings["model_version"] == world.project.published_version


def test_rolling_back_serves_the_old_version_and_publishes_its_predictions(promoted: World) -> None:
    world = promoted
    world.label_studio.add_task(90)
    world.pull()
    round_id = rounds.roll_back(world.ctx, PROJECT, 1)
    assert rounds.run(world.ctx, round_id)
    assert serving(world) == 1
    published = world.project.published_version
    assert published is not None and published.endswith("-v1")
    assert world.label_studio.settings["model_version"] == published
    assert world.label_studio.served_order(PROJECT) == queue_ids(world)
    assert 90 in queue_ids(world), "a task that the old version had never seen"
    shown = {item["task"]: item["result"] for item in world.label_studio.predictions
             if item["model_version"] == published}  # fmt: skip
    with world.ctx.store.read() as s:
        stored = predictions.of_tasks(s, predictions.by_number(s, PROJECT, 1).id, sorted(shown))
    assert set(shown) == set(stored)
    summary = report.round_in_full(world.ctx, round_id)
    assert (summary["trigger"], summary["verdict"]) == ("rollback", "restored")
    assert "version 1" in summary["reason"]


@on_sqlite
def test_rolling_back_cancels_what_runs(promoted: World) -> None:
    running = rounds.open_now(promoted.ctx, PROJECT)
    round_id = rounds.roll_back(promoted.ctx, PROJECT, 1)
    assert status(promoted, running) is RoundStatus.cancelled
    assert rounds.run(promoted.ctx, round_id)
    assert serving(promoted) == 1


@on_sqlite
def test_the_next_round_trains_from_the_version_that_was_brought_back(promoted: World) -> None:
    assert rounds.run(promoted.ctx, rounds.roll_back(promoted.ctx, PROJECT, 1))
    round_id = rounds.open_now(promoted.ctx, PROJECT)
    assert rounds.run(promoted.ctx, round_id)
    assert report.round_in_full(promoted.ctx, round_id)["candidate"]["card"]["parent"] == 1


def test_a_rollback_answers_for_no_annotations(promoted: World) -> None:
    """Annotations that wait for a round still do after a version was brought back."""
    for task_id in range(90, 94):
        promoted.label_studio.add_task(task_id)
        promoted.label_studio.annotate(100 + task_id, task_id)
    promoted.pull()
    assert rounds.run(promoted.ctx, rounds.roll_back(promoted.ctx, PROJECT, 1))
    opened = rounds.open_if_due(promoted.ctx, PROJECT)
    assert opened is not None
    with promoted.ctx.store.read() as s:
        assert rows.get(s, opened).trigger is Trigger.annotations


def test_what_cannot_serve_again_is_refused_and_nothing_changes(promoted: World) -> None:
    with pytest.raises(NotFound, match="no model version 7"):
        rounds.roll_back(promoted.ctx, PROJECT, 7)
    with promoted.ctx.store.begin() as s:
        predictions.by_number(s, PROJECT, 1).pruned_at = promoted.ctx.now()
    running = rounds.open_now(promoted.ctx, PROJECT)
    with pytest.raises(CannotRestore, match="WARDROUND_KEEP_VERSIONS"):
        rounds.roll_back(promoted.ctx, PROJECT, 1)
    assert status(promoted, running) is RoundStatus.opened


def test_a_round_stops_at_the_end_of_its_lane_and_is_passed_on(world: World) -> None:
    populate(world)
    run_first_round(world)
    annotate_both_sides(world)
    round_id = rounds.open_now(world.ctx, PROJECT)
    seen = []
    while (now := status(world, round_id)) is not RoundStatus.done:
        lane = machine.STEPS[now].lane
        for other in set(Lane) - {lane}:
            assert rounds.run(world.ctx, round_id, lane=other)
            assert status(world, round_id) is now, f"{other} has no business with it"
        assert rounds.resume_unclaimed(world.ctx, lane) == [round_id]
        assert rounds.run(world.ctx, round_id, threading.Event(), lane)
        seen.append(lane)
    assert seen == [Lane.label_studio, Lane.training, Lane.scoring, Lane.label_studio]


def test_label_studio_is_put_right_after_a_cancel_between_its_switch_and_our_row(
    promoted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, published = promoted, promoted.project.published_version
    round_id = rounds.open_now(world.ctx, PROJECT)
    step = machine.STEPS[RoundStatus.rescored]

    def act(job: Job) -> Write:
        write = step.act(job)
        assert not rounds.repair(world.ctx, PROJECT), "the round has not ended yet"
        rounds.cancel(world.ctx, round_id)
        return write

    monkeypatch.setitem(machine.STEPS, RoundStatus.rescored, machine.Step(act, step.lane))
    assert not rounds.run(world.ctx, round_id)
    assert world.label_studio.settings["model_version"] != published
    assert rounds.repair(world.ctx, PROJECT)
    assert world.label_studio.settings["model_version"] == published
    assert world.label_studio.served_order(PROJECT) == queue_ids(world)
    assert not rounds.repair(world.ctx, PROJECT)
    world.label_studio.settings["model_version"] = "somebody else's"
    assert not rounds.repair(world.ctx, PROJECT), "what is not ours is not ours to change"
