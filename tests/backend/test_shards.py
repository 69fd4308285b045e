"""A rescoring in pieces: every task is scored once, whoever takes part and whoever dies."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from backend import predictions as journey
from backend import rounds
from backend.errors import Interrupted, RoundError
from backend.rounds import machine
from backend.store import predictions, shards
from backend.store import rounds as rows
from backend.tables import Lane, RoundStatus, Verdict
from tests.backend.conftest import World
from tests.backend.test_rounds import PROJECT, annotate_both_sides, end_lease, populate, run_first_round


@pytest.fixture
def decided(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[World, int]:
    """A round that is about to rescore, in shards of three tasks."""
    from backend.rounds import promote

    monkeypatch.setattr(promote, "decide", lambda **_: promote.Decision(Verdict.promoted, "by the test"))
    object.__setattr__(world.ctx, "settings", world.ctx.settings.model_copy(update={"shard_size": 3}))
    populate(world)
    run_first_round(world)
    annotate_both_sides(world)
    round_id = rounds.open_now(world.ctx, PROJECT)
    for lane in (Lane.label_studio, Lane.training):
        assert rounds.run(world.ctx, round_id, lane=lane)
    with world.ctx.store.read() as s:
        assert rows.get(s, round_id).status is RoundStatus.decided
    return world, round_id


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each task is predicted."""
    times: Counter[int] = Counter()
    predict = journey._predict

    def count(ctx: Any, project: Any, served: Any, config: Any, task: Any, *rest: Any) -> Any:
        times[task.id] += 1
        return predict(ctx, project, served, config, task, *rest)

    monkeypatch.setattr(journey, "_predict", count)
    return times


def unscored(world: World, round_id: int) -> int:
    with world.ctx.store.read() as s:
        row = rows.get(s, round_id)
        assert row.candidate_id is not None
        return len(predictions.tasks_without(s, PROJECT, row.candidate_id))


def test_several_processes_share_the_pool_and_no_task_is_scored_twice(
    decided: tuple[World, int], counted: Counter[int]
) -> None:
    world, round_id = decided
    n_tasks = unscored(world, round_id)
    helped: list[int] = []
    gate = threading.Barrier(3)

    def help_out() -> None:
        gate.wait()
        for _ in range(50):  # the shards may not be there yet
            helped.append(rounds.help_with(world.ctx, round_id, threading.Event()))

    helpers = [threading.Thread(target=help_out) for _ in range(2)]
    for helper in helpers:
        helper.start()
    gate.wait()
    assert rounds.run(world.ctx, round_id, lane=Lane.scoring)
    for helper in helpers:
        helper.join()
    assert unscored(world, round_id) == 0
    assert len(counted) == n_tasks and set(counted.values()) == {1}
    with world.ctx.store.read() as s:
        found = shards.of_round(s, round_id)
        assert rows.get(s, round_id).status is RoundStatus.rescored
    assert sum(len(shard.task_ids) for shard in found) == n_tasks and len(found) == -(-n_tasks // 3)
    assert all(shard.done for shard in found)


def test_other_scoring_processes_are_called_to_help(decided: tuple[World, int]) -> None:
    world, round_id = decided
    world.sent.clear()
    n_shards = -(-unscored(world, round_id) // 3)
    assert rounds.run(world.ctx, round_id, lane=Lane.scoring)
    assert world.sent.count(("score_shards", round_id)) == n_shards - 1


def test_helping_where_there_is_nothing_to_do_does_nothing(decided: tuple[World, int]) -> None:
    world, round_id = decided
    assert rounds.help_with(world.ctx, round_id, threading.Event()) == 0
    assert rounds.run(world.ctx, round_id)
    assert rounds.help_with(world.ctx, round_id, threading.Event()) == 0


class Killed(BaseException):
    """The process ends without a word."""


def test_a_rescoring_goes_on_where_it_was_killed(
    decided: tuple[World, int], counted: Counter[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, round_id = decided
    n_tasks = unscored(world, round_id)
    store = predictions.add
    calls: list[int] = []

    def die(s: Any, given: Any) -> None:
        store(s, given)
        calls.append(1)
        if len(calls) == 5:
            s.commit()
            raise Killed

    monkeypatch.setattr(predictions, "add", die)
    with pytest.raises(Killed):
        rounds.run(world.ctx, round_id)
    end_lease(world, round_id)
    with world.ctx.store.begin() as s:
        for shard in shards.of_round(s, round_id):
            if shard.claim:
                shard.lease_until = 0.0
    assert rounds.run(world.ctx, round_id)
    assert len(counted) == n_tasks and set(counted.values()) == {1}


def test_a_shard_in_dead_hands_is_taken_over_after_its_lease(decided: tuple[World, int]) -> None:
    world, round_id = decided
    with world.ctx.store.begin() as s:
        shards.write(s, round_id, [1, 2, 3, 4], 2)
    with world.ctx.store.begin() as s:
        first = shards.claim_next(s, round_id, "dead", 60)
        second = shards.claim_next(s, round_id, "alive", 60)
        assert first is not None and second is not None and first.number != second.number
        assert shards.claim_next(s, round_id, "late", 60) is None
    with world.ctx.store.begin() as s:
        shards.of_round(s, round_id)[0].lease_until = 0.0
    with world.ctx.store.begin() as s:
        again = shards.claim_next(s, round_id, "late", 60)
        assert again is not None and again.number == first.number
    with world.ctx.store.begin() as s:
        assert not shards.beat(s, first, "dead", 60)
        assert not shards.finish(s, first, "dead"), "whoever was thought dead decides nothing any more"
        assert shards.finish(s, again, "late")


def test_a_shard_that_ends_every_process_fails_the_round_in_words(decided: tuple[World, int]) -> None:
    world, round_id = decided
    with world.ctx.store.begin() as s:
        shards.write(s, round_id, [1, 2], 2)
        shards.of_round(s, round_id)[0].attempts = world.ctx.settings.max_attempts
    with pytest.raises(RoundError, match="tasks 1 to 2 crashed"):
        rounds.run(world.ctx, round_id)


def test_a_helper_that_is_asked_to_stop_leaves_its_shard_to_others(
    decided: tuple[World, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, round_id = decided
    stop = threading.Event()
    stop.set()
    with world.ctx.store.begin() as s:
        row = rows.get(s, round_id)
        assert row.candidate_id is not None
        left = [task.id for task in predictions.tasks_without(s, PROJECT, row.candidate_id)]
        shards.write(s, round_id, left, 3)
    with pytest.raises(Interrupted):
        rounds.help_with(world.ctx, round_id, stop)
    with world.ctx.store.read() as s:
        assert {(shard.claim, shard.attempts) for shard in shards.of_round(s, round_id)} == {(None, 0)}
    assert rounds.run(world.ctx, round_id)
    assert unscored(world, round_id) == 0


def test_a_tick_calls_for_help_while_shards_are_free(decided: tuple[World, int]) -> None:
    world, round_id = decided
    with world.ctx.store.begin() as s:
        shards.write(s, round_id, [1, 2], 2)
        assert rows.claim(s, round_id, "somebody", 60)
    world.sent.clear()
    assert rounds.resume_unclaimed(world.ctx) == []
    assert world.sent == [("score_shards", round_id)]
    assert machine.STEPS[RoundStatus.decided].lane is Lane.scoring
