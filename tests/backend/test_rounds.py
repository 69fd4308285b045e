"""Journeys 3 and 4: a round ends the same whatever interrupts it, and what it publishes is what is served."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backend import report, rounds
from backend.errors import ClaimLost, Interrupted, RoundError, RoundRunning
from backend.label_studio.errors import LabelStudioUnreachable
from backend.rounds import machine
from backend.rounds.claim import Claim
from backend.rounds.job import Job, Write
from backend.rounds.train import data_sha256
from backend.store import predictions, projects
from backend.store import rounds as rows
from backend.tables import Lane, Role, RoundStatus, Verdict
from tests.backend.conftest import World
from tests.backend.fakes import SIDE

PROJECT = 1


def populate(world: World, n: int = 14) -> None:
    for task_id in range(1, n + 1):
        world.label_studio.add_task(task_id, group=f"patient {task_id // 2}")
    world.pull()


def run_first_round(world: World) -> int:
    round_id = rounds.open_if_due(world.ctx, PROJECT)
    assert round_id is not None
    assert rounds.run(world.ctx, round_id)
    return round_id


def annotate_head(world: World, n: int) -> list[int]:
    """Answer the next tasks in the order Label Studio serves them; returns their ids."""
    head = world.label_studio.served_order(PROJECT)[:n]
    for task_id in head:
        world.label_studio.annotate(100 + task_id, task_id)
    world.pull()
    return head


def annotate_both_sides(world: World) -> None:
    """Answer every held-out task and four others, so that a round can both train and evaluate."""
    with world.ctx.store.read() as s:
        tasks = projects.unlabelled_tasks(s, PROJECT)
    wanted = [task.id for task in tasks if task.held_out] + [task.id for task in tasks if not task.held_out][:4]
    for task_id in wanted:
        world.label_studio.annotate(100 + task_id, task_id)
    world.pull()


def in_full(world: World, round_id: int) -> dict[str, Any]:
    return report.round_in_full(world.ctx, round_id)


def queue_ids(world: World) -> list[int]:
    return [row["task_id"] for row in report.queue_of(world.ctx, PROJECT)]


def test_the_first_round_publishes_every_task_before_any_label_exists(world: World) -> None:
    populate(world)
    summary = in_full(world, run_first_round(world))
    assert (summary["status"], summary["verdict"], summary["candidate"]) == ("done", "initial", None)
    assert sorted(queue_ids(world)) == list(range(1, 15))
    assert world.label_studio.served_order(PROJECT) == queue_ids(world)
    assert world.project.published_version == world.label_studio.settings["model_version"]
    assert world.ctx.serving.version(PROJECT) is None


def test_a_round_trains_evaluates_promotes_rescores_and_publishes(world: World) -> None:
    populate(world)
    run_first_round(world)
    annotate_both_sides(world)
    round_id = rounds.open_if_due(world.ctx, PROJECT)
    assert round_id is not None
    assert world.sent[-1] == ("run_round", round_id)
    assert rounds.run(world.ctx, round_id)
    summary = in_full(world, round_id)
    assert (summary["status"], summary["verdict"], summary["n_labels"]) == ("done", "promoted", 4)
    assert summary["n_held_out"] > 0
    assert 0 <= summary["dice"] <= 1
    assert len(summary["evaluation"]["candidate"]["dice_per_image"]) == summary["n_held_out"]
    assert summary["candidate"]["serving"]
    version = world.ctx.serving.version(PROJECT)
    assert version is not None
    with world.ctx.store.read() as s:
        assert predictions.tasks_without(s, PROJECT, version.id) == []
        assert predictions.queue_size(s, round_id) == len(world.label_studio.served_order(PROJECT))
    assert world.label_studio.served_order(PROJECT) == queue_ids(world)
    assert str(world.project.published_version).endswith(f"-v{version.number}")


def test_a_version_remembers_what_it_was_trained_on_and_from(world: World) -> None:
    populate(world)
    run_first_round(world)
    annotate_both_sides(world)
    hashes = []
    for _ in range(2):
        round_id = rounds.open_now(world.ctx, PROJECT)
        assert rounds.run(world.ctx, round_id)
        with world.ctx.store.read() as s:
            trained = rows.items(s, round_id, Role.train)
            row = rows.get(s, round_id)
            assert row.candidate_id is not None
            version = predictions.version(s, row.candidate_id)
            parent = predictions.version(s, row.incumbent_id) if row.incumbent_id else None
        assert version.card["parents"] == ([parent.checkpoint_sha256] if parent else [])
        assert version.card["data_sha256"] == data_sha256(trained) == data_sha256(trained[::-1])
        assert data_sha256(trained[1:]) != version.card["data_sha256"]
        hashes.append(version.card["data_sha256"])
        annotate_head(world, 3)
    assert hashes[0] != hashes[1]


def test_held_out_tasks_are_never_trained_on(world: World) -> None:
    populate(world, 24)
    run_first_round(world)
    for _ in range(3):
        annotate_head(world, 5)
        assert rounds.run(world.ctx, rounds.open_now(world.ctx, PROJECT))
    with world.ctx.store.read() as s:
        held_out = {task.id for task in projects.all_tasks(s, PROJECT) if task.held_out}
        seen = {
            role: {item.task_id for row in rows.of_project(s, PROJECT) for item in rows.items(s, row.id, role)}
            for role in Role
        }
    assert seen[Role.held_out] <= held_out
    assert not seen[Role.train] & held_out
    assert seen[Role.train]
    assert seen[Role.held_out]


class Killed(BaseException):
    """A process that ends without a word: nothing after it runs, not even the handing back."""


@pytest.mark.parametrize("after", [False, True], ids=["before its write", "after its write"])
@pytest.mark.parametrize("status", list(machine.STEPS))
def test_a_process_killed_at_any_step_leaves_a_round_that_ends_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch, status: RoundStatus, after: bool
) -> None:
    populate(world)
    run_first_round(world)
    annotate_both_sides(world)
    round_id = rounds.open_now(world.ctx, PROJECT)
    steps = dict(machine.STEPS)
    monkeypatch.setitem(machine.STEPS, status, replace(steps[status], act=_killing(steps[status].act, after)))
    with pytest.raises(Killed):
        rounds.run(world.ctx, round_id)
    monkeypatch.setitem(machine.STEPS, status, steps[status])
    assert not rounds.run(world.ctx, round_id), "the claim of the dead process still holds"
    end_lease(world, round_id)
    assert rounds.resume_unclaimed(world.ctx) == [round_id]
    assert rounds.run(world.ctx, round_id)
    summary = in_full(world, round_id)
    assert (summary["status"], summary["verdict"]) == ("done", "promoted")
    assert world.label_studio.served_order(PROJECT) == queue_ids(world)
    served = [item["task"] for item in world.label_studio.predictions if item["model_version"] == _published(world)]
    assert len(served) == len(set(served)), "no prediction is published twice"
    with world.ctx.store.read() as s:
        assert [row.number for row in rows.of_project(s, PROJECT)] == [0, 1]


def _killing(step: Callable[[Job], Write], after: bool) -> Callable[[Job], Write]:
    def killed(job: Job) -> Write:
        write = step(job)
        if after:
            with job.ctx.store.begin() as s:
                # The write and the move are one transaction: dying in it is dying before it.
                write(s)
                raise Killed
        raise Killed

    return killed


def end_lease(world: World, round_id: int) -> None:
    """As if nobody had given a sign of life for a whole lease, or a handed back round had rested."""
    with world.ctx.store.begin() as s:
        rows.get(s, round_id).lease_until = 0.0


def _published(world: World) -> str:
    return str(world.label_studio.settings["model_version"])


def test_a_round_stops_where_it_is_asked_to_and_goes_on_from_there(world: World) -> None:
    populate(world)
    run_first_round(world)
    annotate_both_sides(world)
    round_id = rounds.open_now(world.ctx, PROJECT)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        rounds.run(world.ctx, round_id, stop)
    assert rounds.resume_unclaimed(world.ctx) == [round_id], "it is handed back at once, not after the lease"
    assert rounds.run(world.ctx, round_id)
    assert in_full(world, round_id)["status"] == "done"


def test_label_studio_down_hands_the_round_back_without_counting_against_it(world: World) -> None:
    populate(world)
    round_id = rounds.open_now(world.ctx, PROJECT)
    world.label_studio.down = True
    for _ in range(world.ctx.settings.max_attempts + 2):
        with pytest.raises(LabelStudioUnreachable):
            rounds.run(world.ctx, round_id)
        assert rounds.resume_unclaimed(world.ctx) == [], "it rests before it is tried again"
        end_lease(world, round_id)
    world.label_studio.down = False
    assert rounds.run(world.ctx, round_id)
    assert in_full(world, round_id)["status"] == "done"


def test_a_step_that_always_crashes_fails_the_round_in_words(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    populate(world)
    round_id = rounds.open_now(world.ctx, PROJECT)

    def crash(_job: Job) -> Write:
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(machine.STEPS, RoundStatus.selected, machine.Step(crash, Lane.training))
    for _ in range(world.ctx.settings.max_attempts):
        with pytest.raises(ZeroDivisionError):
            rounds.run(world.ctx, round_id)
        end_lease(world, round_id)
    with pytest.raises(RoundError):
        rounds.run(world.ctx, round_id)
    summary = in_full(world, round_id)
    assert summary["status"] == "failed"
    assert "a bug" in summary["error"]
    assert rounds.open_now(world.ctx, PROJECT) != round_id, "a failed round does not block the next"


def test_one_unfinished_round_a_project(world: World) -> None:
    populate(world)
    rounds.open_now(world.ctx, PROJECT)
    with pytest.raises(RoundRunning):
        rounds.open_now(world.ctx, PROJECT)
    assert rounds.open_if_due(world.ctx, PROJECT) is None


def test_many_openers_at_once_open_one_round(world: World) -> None:
    populate(world)
    opened: list[int | None] = []
    threads = [threading.Thread(target=lambda: opened.append(rounds.open_if_due(world.ctx, PROJECT))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([one for one in opened if one is not None]) == 1
    assert len(opened) == 8


def test_two_workers_cannot_hold_one_claim(world: World) -> None:
    populate(world)
    round_id = rounds.open_now(world.ctx, PROJECT)
    with Claim(world.ctx, round_id, threading.Event()) as first:
        assert first.taken
        with Claim(world.ctx, round_id, threading.Event()) as second:
            assert not second.taken
        end_lease(world, round_id)
        with world.ctx.store.begin() as s:
            assert rows.claim(s, round_id, "another", 60)
        with world.ctx.store.begin() as s, pytest.raises(ClaimLost):
            rows.advance(s, round_id, first.owner, RoundStatus.opened, RoundStatus.selected, world.ctx.now())
        with pytest.raises(ClaimLost):
            first.confirm()


def test_a_broken_image_is_left_out_by_name_and_the_round_goes_on(world: World) -> None:
    populate(world)
    run_first_round(world)
    annotate_both_sides(world)
    with world.ctx.store.read() as s:
        item = next(task for task in projects.all_tasks(s, PROJECT) if not task.held_out)
    world.label_studio.images[item.image_url] = world.label_studio.images[item.image_url][:50]
    round_id = rounds.open_now(world.ctx, PROJECT)
    assert rounds.run(world.ctx, round_id)
    summary = in_full(world, round_id)
    assert summary["status"] == "done"
    assert list(summary["left_out"]) == [str(item.id)]
    assert item.id not in {one["task_id"] for one in summary["items"]}


def test_a_mask_of_another_size_than_its_image_is_left_out(world: World) -> None:
    populate(world)
    run_first_round(world)
    annotate_both_sides(world)
    with world.ctx.store.read() as s:
        item = next(task for task in projects.unlabelled_tasks(s, PROJECT) if not task.held_out)
    # The image is not on disk yet, so the webhook cannot know; the round does.
    world.label_studio.annotate(500, item.id, mask=np.ones((SIDE // 2, SIDE // 2), dtype=bool))
    world.pull()
    round_id = rounds.open_now(world.ctx, PROJECT)
    assert rounds.run(world.ctx, round_id)
    assert "48 x 48" in in_full(world, round_id)["left_out"][str(item.id)]


def test_a_label_that_was_not_painted_trains_as_absent(world: World) -> None:
    populate(world)
    with world.ctx.store.read() as s:
        item = next(task for task in projects.unlabelled_tasks(s, PROJECT) if not task.held_out)
    world.label_studio.annotate(500, item.id, mask=np.zeros((SIDE, SIDE), dtype=bool))
    world.pull()
    round_id = rounds.open_now(world.ctx, PROJECT)
    assert rounds.run(world.ctx, round_id)
    (only,) = in_full(world, round_id)["items"]
    assert only["mask_sha256"] == world.ctx.files.put_mask(np.zeros((SIDE, SIDE), dtype=bool))


def test_a_kept_candidate_does_not_serve(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    populate(world)
    run_first_round(world)
    annotate_both_sides(world)
    assert rounds.run(world.ctx, rounds.open_now(world.ctx, PROJECT))
    before = world.ctx.serving.version(PROJECT)
    from backend.rounds import promote

    monkeypatch.setattr(promote, "decide", lambda **_: promote.Decision(Verdict.kept, "by the test"))
    round_id = rounds.open_now(world.ctx, PROJECT)
    assert rounds.run(world.ctx, round_id)
    after = world.ctx.serving.version(PROJECT)
    assert before is not None
    assert after is not None
    assert after.id == before.id
    assert in_full(world, round_id)["verdict"] == "kept"
    assert world.label_studio.served_order(PROJECT) == queue_ids(world)
