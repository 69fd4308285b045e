"""What is read of a project's own rounds and annotations: how far it still is, and whether active learning pays."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from backend import cli as commands
from backend import forecast, paying
from backend.errors import BadQuestion, NotConnected, TooEarly
from backend.store import evidence
from backend.tables import Annotation, Arm, Effort, Publication, Query, Role, RoundItem, Task, Verdict
from tests.backend import rows
from tests.backend.conftest import World
from tests.backend.web import BEARER, serve

PROJECT = 1
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)
RISING = ((20, 0.50), (40, 0.62), (60, 0.68), (80, 0.71))
HELD_OUT = range(901, 911)  # tasks, two a group


def add_tasks(world: World, n: int) -> None:
    """Tasks 1 to n with an annotation each, ten held-out ones, and five that nobody has answered."""
    with world.ctx.store.begin() as s:
        for task_id in range(1, n + 1):
            s.add(rows.task(id=task_id, group_key=f"p{task_id // 2}"))
        for task_id in range(801, 806):
            s.add(rows.task(id=task_id))
        for task_id in HELD_OUT:
            s.add(rows.task(id=task_id, group_key=f"h{task_id // 2}", held_out=True))
        s.flush()
        for task_id in range(1, n + 1):
            s.add(rows.annotation(id=task_id, task_id=task_id, lead_time_seconds=30.0))


def add_round(world: World, number: int, n_labels: int, dice: float, **changed: Any) -> None:
    """A round that trained on tasks 1 to n_labels; its candidate has that Dice on the held-out tasks, give or take."""
    items = [[task_id, "Lesion"] for task_id in HELD_OUT]
    values = [dice + 0.05 * (-1) ** place for place in range(len(items))]
    with world.ctx.store.begin() as s:
        s.add(rows.version(id=number, number=number))
        s.flush()
        evaluation = {"items": items, "candidate": {"dice": dice, "dice_per_image": values}}
        given = {"candidate_id": number, "verdict": Verdict.promoted, "evaluation": evaluation} | changed
        s.add(rows.a_round(id=100 + number, number=number, **given))
        s.flush()
        for task_id in range(1, n_labels + 1):
            s.add(
                RoundItem(
                    round_id=100 + number, annotation_id=task_id, label="Lesion", task_id=task_id, role=Role.train,
                    image_sha256=rows.SHA256, mask_sha256=rows.SHA256, prompt="a lesion",
                )
            )  # fmt: skip


def with_rounds(world: World, curve: Sequence[tuple[int, float]] = RISING) -> World:
    add_tasks(world, max((n for n, _ in curve), default=0))
    for number, (n_labels, dice) in enumerate(curve, start=1):
        add_round(world, number, n_labels, dice)
    return world


@pytest.fixture
def on_world(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Commands speak of this world."""
    monkeypatch.setattr(commands, "_context", lambda: world.ctx)
    return world


def run(*arguments: str) -> str:
    done = CliRunner().invoke(commands.cli, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


# ----------------------------------------------------------------------------------------------------------- forecast


def test_rounds_are_read_as_they_are_stored(world: World) -> None:
    with_rounds(world)
    found = forecast.of_project(world.ctx, PROJECT, 0.75)
    assert [(row["round"], row["n_labels"], row["n_held_out"]) for row in found["rounds"]] == [
        (1, 20, 10), (2, 40, 10), (3, 60, 10), (4, 80, 10),
    ]  # fmt: skip
    assert [row["dice"] for row in found["rounds"]] == pytest.approx([0.50, 0.62, 0.68, 0.71])
    assert found["seconds_per_label"] == 30.0
    assert found["pool"] == 5
    assert 0 < found["labels"]["low"] <= found["labels"]["median"]
    assert found["minutes"]["median"] == pytest.approx(found["labels"]["median"] / 2)
    assert found["words"][0].startswith("a Dice of 0.75 needs about")
    assert found["words"][1].endswith("at 30 s a label")
    assert found["words"][2].startswith("5 images are left to ask for; the chance to reach it with them is ")
    assert found["words"][-1].startswith("the next 5 queries of 20 should add 0.")
    assert found["stop"] is False
    assert [row["n_labels"] for row in found["ahead"]] == [80, 100, 120, 160, 240]
    json.dumps(found, allow_nan=False)


@on_sqlite
def test_only_rounds_that_trained_and_were_evaluated_count(world: World) -> None:
    with_rounds(world)
    before = forecast.of_project(world.ctx, PROJECT)
    with world.ctx.store.begin() as s:
        s.add(rows.a_round(id=201, number=201))
        s.add(rows.a_round(id=202, number=202, candidate_id=1, evaluation={"reason": "a person chose version 1"}))
    add_round(world, 203, 80, 0.1, evaluation={"items": [], "candidate": {"dice": None, "dice_per_image": []}})
    add_round(world, 204, 0, 0.1)
    assert forecast.of_project(world.ctx, PROJECT) == before
    add_round(world, 205, 80, 0.72, verdict=Verdict.kept)
    assert len(forecast.of_project(world.ctx, PROJECT)["rounds"]) == 5, "a candidate that was not promoted counts"


@on_sqlite
def test_what_cannot_be_reached_is_null_and_said(world: World) -> None:
    with_rounds(world, [(10, 0.70), (20, 0.701), (30, 0.699), (40, 0.70), (50, 0.70)])
    found = forecast.of_project(world.ctx, PROJECT, 0.95)
    assert found["labels"]["median"] is None and found["minutes"]["high"] is None
    assert "may never be reached" in found["words"][0]
    assert found["stop"] is True
    json.dumps(found, allow_nan=False)


@on_sqlite
def test_what_has_been_reached_needs_nothing(world: World) -> None:
    with_rounds(world)
    found = forecast.of_project(world.ctx, PROJECT, 0.3)
    assert found["labels"] == {"low": 0, "median": 0, "high": 0}
    assert found["words"][0] == "a Dice of 0.3 has been reached: no more labels are needed"
    assert len(found["words"]) == 2


@on_sqlite
def test_without_lead_times_no_minutes_are_said(world: World) -> None:
    with_rounds(world)
    with world.ctx.store.begin() as s:
        for annotation in s.query(Annotation):
            annotation.lead_time_seconds = None
    found = forecast.of_project(world.ctx, PROJECT)
    assert found["minutes"] is found["seconds_per_label"] is None


@on_sqlite
def test_a_lunch_break_is_not_what_a_label_costs(world: World) -> None:
    with_rounds(world)
    with world.ctx.store.begin() as s:
        s.get_one(Annotation, 1).lead_time_seconds = 80_000.0
    assert forecast.of_project(world.ctx, PROJECT)["seconds_per_label"] < 32


@on_sqlite
@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_rounds_are_said_with_what_to_do(world: World, n: int) -> None:
    with_rounds(world, RISING[:n])
    with pytest.raises(TooEarly, match=rf"3 rounds.*there are {n}: annotate on"):
        forecast.of_project(world.ctx, PROJECT)


@on_sqlite
def test_what_cannot_be_asked_is_refused(world: World) -> None:
    with_rounds(world)
    for ask in (forecast.of_project, forecast.picture):
        with pytest.raises(BadQuestion, match="between 0 and 1"):
            ask(world.ctx, PROJECT, 90.0)
        with pytest.raises(NotConnected):
            ask(world.ctx, 44)


@on_sqlite
def test_the_forecast_is_told_alike_by_command_and_api(on_world: World, tmp_path: Path) -> None:
    with_rounds(on_world)
    svg = tmp_path / "forecast.svg"
    with serve(on_world) as client:
        told = client.get(f"/api/projects/{PROJECT}/forecast?target=0.8", headers=BEARER).json()
        assert client.get(f"/api/projects/{PROJECT}/forecast", headers=BEARER).json()["target"] == 0.9
        assert client.get(f"/api/projects/{PROJECT}/forecast?target=2", headers=BEARER).status_code == 422
        assert client.get(f"/api/projects/{PROJECT}/forecast").status_code == 401
    assert json.loads(run("forecast", "1", "--target", "0.8", "--json", "--svg", str(svg))) == told
    said = run("forecast", "1", "--target", "0.8")
    assert "A Dice of 0.8 " in said and "n_held_out" in said and "median" in said
    assert svg.read_text().startswith("<svg")


@on_sqlite
def test_too_early_is_one_line_and_no_server_error(on_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(on_world) as client:
        answer = client.get(f"/api/projects/{PROJECT}/forecast", headers=BEARER)
    assert answer.status_code == 409 and "annotate on" in answer.json()["detail"]
    monkeypatch.setattr(sys, "argv", ["wardround", "forecast", "1"])
    with pytest.raises(SystemExit) as stopped:
        commands.main()
    assert str(stopped.value.code).startswith("wardround: a forecast needs 3 rounds")


@on_sqlite
def test_a_picture_that_cannot_be_written_is_said(on_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with_rounds(on_world)
    monkeypatch.setattr(sys, "argv", ["wardround", "forecast", "1", "--svg", "/nonexistent/forecast.svg"])
    with pytest.raises(SystemExit, match="cannot be written"):
        commands.main()


# ------------------------------------------------------------------------------------------------------------- paying


def answered(world: World, *, strategy: float, random: float, n: int = 40, by: str = "entropy") -> World:
    """A round whose queue served n tasks, every other by chance; pre-annotations of either arm had these Dices."""
    add_tasks(world, n)
    with world.ctx.store.begin() as s:
        s.add(rows.a_round(id=101, number=1, strategy=by))
        s.flush()
        s.add(Publication(round_id=101, name="wardround-r1-v1", attempt=1))
        for task_id in range(1, n + 1):
            by_chance = task_id % 2 == 0
            annotation = s.get_one(Annotation, task_id)
            annotation.lead_time_seconds = 30.0 if by_chance else 44.0
            arm, dice = (Arm.random, random) if by_chance else (Arm.strategy, strategy)
            s.add(Query(round_id=101, rank=task_id, task_id=task_id, arm=arm))
            s.add(rows.effort(annotation_id=task_id, round_id=101, accepted=dice == 1, dice={"Lesion": dice}))
    return world


def test_the_arms_are_compared(world: World) -> None:
    found = paying.of_project(answered(world, strategy=0.7, random=0.8).ctx, PROJECT)
    assert found["verdict"] == "harder"
    assert found["words"][0].startswith("the strategy's images were 0.10 Dice harder than random ones")
    assert found["words"][1].startswith("each took 14 s longer")
    dice, seconds, accepted = found["measures"]
    assert [row["measure"] for row in (dice, seconds, accepted)] == ["dice", "seconds", "accepted"]
    assert (dice["n_strategy"], dice["n_random"]) == (20, 20)
    assert (dice["strategy"], dice["random"], dice["difference"]) == pytest.approx((0.7, 0.8, -0.1))
    assert seconds["difference"] == pytest.approx(14)
    assert found["random_dice"]["value"] == pytest.approx(0.8)
    assert found["hidden"] == {"strategy": 0, "random": 0}


@on_sqlite
def test_what_does_not_belong_to_an_arm_is_left_out(world: World) -> None:
    """Held-out tasks, skipped and deleted annotations, those of no round; a second label counts in its annotation."""
    answered(world, strategy=0.7, random=0.8)
    with world.ctx.store.begin() as s:
        s.get_one(Query, (101, 1)).arm = Arm.held_out
        s.get_one(Annotation, 2).skipped = True
        s.get_one(Annotation, 3).deleted_at = rows.NOW
        s.get_one(Effort, 4).round_id = None
        s.get_one(Task, 5).deleted_at = rows.NOW
        s.get_one(Effort, 6).dice = {"Lesion": 0.8, "Organ": 0.4}
    with world.ctx.store.read() as s:
        found = evidence.answers(s, PROJECT)
    assert len(found) == 35
    assert [one.arm for one in found].count(Arm.random) == 18
    (dice, *_) = paying.of_project(world.ctx, PROJECT)["measures"]
    assert dice["random"] == pytest.approx(0.8 - 0.2 / 18)


@on_sqlite
def test_a_round_that_asks_by_chance_compares_nothing(world: World) -> None:
    answered(world, strategy=0.7, random=0.8, by="random")
    assert paying.of_project(world.ctx, PROJECT)["verdict"] == "too few"


@on_sqlite
def test_pre_annotations_that_triage_hid_are_missing_and_said_so(world: World) -> None:
    answered(world, strategy=0.7, random=0.8)
    with world.ctx.store.begin() as s:
        s.get_one(Publication, 101).triage = {"redraw_dice": 0.5, "accept_dice": 0.9}
        for task_id, bound in ((1, 0.3), (3, 0.45), (4, 0.2), (5, 0.6)):
            s.get_one(Query, (101, task_id)).dice_bound = bound
        for task_id in (1, 3, 4):
            row = s.get_one(Effort, task_id)
            row.dice = row.accepted = None
    found = paying.of_project(world.ctx, PROJECT)
    assert found["hidden"] == {"strategy": 2, "random": 1}
    assert found["words"][-1].startswith("2 pre-annotations of the strategy's images and 1 of random ones were judged")
    assert (found["measures"][0]["n_strategy"], found["measures"][0]["n_random"]) == (18, 19)


@on_sqlite
def test_paying_is_told_alike_by_command_and_api(on_world: World) -> None:
    with serve(on_world) as client:
        early = client.get(f"/api/projects/{PROJECT}/paying", headers=BEARER).json()
        assert early["verdict"] == "too few"
        assert early["words"] == ["cannot tell yet: 0 random answers with a pre-annotation, at least 10 needed"]
        answered(on_world, strategy=0.7, random=0.8)
        told = client.get(f"/api/projects/{PROJECT}/paying", headers=BEARER).json()
        assert client.get("/api/projects/44/paying", headers=BEARER).status_code == 404
        assert client.get(f"/api/projects/{PROJECT}/paying").status_code == 401
    assert json.loads(run("paying", "1", "--json")) == told
    said = run("paying", "1")
    assert "The strategy's images were 0.10 Dice harder" in said and "n_random" in said
