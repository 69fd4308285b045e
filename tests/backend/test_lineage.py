"""Where a version comes from: enough is written down to train it again, weight for weight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backend import rounds
from backend.errors import RoundError
from backend.rounds import lineage
from backend.rounds.lineage import Clock, replayed
from backend.store import predictions
from backend.store import rounds as rows
from backend.tables import Verdict
from model import TrainConfig
from tests.backend.conftest import World
from tests.backend.test_rounds import PROJECT, annotate_both_sides, annotate_head, populate, run_first_round

# What differs between databases is not asked here, and each of these trains.
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


@pytest.fixture
def trained(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two rounds that trained: one from nothing, one from the version of the first."""
    from backend.rounds import promote

    monkeypatch.setattr(promote, "decide", lambda **_: promote.Decision(Verdict.promoted, "by the test"))
    object.__setattr__(world.ctx, "settings", world.ctx.settings.model_copy(update={"train_max_steps": 3}))
    populate(world)
    run_first_round(world)
    annotate_both_sides(world)
    done = []
    for _ in range(2):
        done.append(rounds.open_now(world.ctx, PROJECT))
        assert rounds.run(world.ctx, done[-1])
        annotate_head(world, 2)
    return done


@on_sqlite
def test_a_version_trained_again_from_its_lineage_has_the_same_weights(world: World, trained: list[int]) -> None:
    for round_id in trained:
        again = rounds.reproduce(world.ctx, round_id)
        assert again.same_training_set
        assert again.same_weights
        assert again.code_differs == []


@on_sqlite
def test_what_was_changed_since_is_noticed(world: World, trained: list[int]) -> None:
    with world.ctx.store.begin() as s:
        row = rows.get(s, trained[0])
        assert row.candidate_id is not None
        version = predictions.version(s, row.candidate_id)
        version.card = version.card | {"begun_with_seed": 4711, "code": version.card["code"] | {"torch": "0.1"}}
        s.add(version)
        items = rows.items(s, trained[0])
        items[0].prompt = "another prompt"
        s.add_all(items)
    again = rounds.reproduce(world.ctx, trained[0])
    assert not again.same_weights
    assert again.code_differs == ["torch"]


def test_a_round_without_a_version_says_so(world: World) -> None:
    populate(world)
    with pytest.raises(RoundError, match="trained nothing"):
        rounds.reproduce(world.ctx, run_first_round(world))


def test_the_clock_is_kept_only_where_it_decided_something(tmp_path: Path) -> None:
    config = replace(TrainConfig(), max_steps=4, time_limit_seconds=10.0)
    leisurely, hurried = Clock(tmp_path / "leisurely"), Clock(tmp_path / "hurried")
    for step in range(1, 5):
        leisurely.note(step, step * 1.0)
        hurried.note(step, step * 4.0)
    assert leisurely.that_mattered(config) is None
    assert hurried.that_mattered(config) == [4.0, 8.0, 12.0, 16.0]
    assert replayed(None)() == replayed(None)() == 0.0
    told = replayed([4.0, 8.0])
    assert [told() for _ in range(3)] == [0.0, 4.0, 8.0]


def test_the_clock_survives_a_kill_and_the_steps_taken_again(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock")
    for step in (1, 2, 3):
        clock.note(step, float(step))
    with clock.path.open("a") as file:
        file.write("4")  # killed while it wrote
        file.write("\n")
    clock.note(3, 30.0)
    clock.note(4, 0.1 + 0.2)
    assert clock.that_mattered(replace(TrainConfig(), max_steps=4, time_limit_seconds=1e-9)) == [
        1.0,
        2.0,
        30.0,
        0.1 + 0.2,
    ]
    clock.forget()
    assert clock.that_mattered(replace(TrainConfig(), max_steps=4, time_limit_seconds=1.0)) is None


def test_the_code_version_names_what_computes() -> None:
    found = lineage.code_version()
    assert set(found) == {"wardround", "torch", "model_sha256"}
    assert len(found["model_sha256"]) == 64
