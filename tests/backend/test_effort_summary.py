"""What is read of the effort ledger: figures by round, label and annotator, for people, scripts and monitors."""

import csv
import io
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from backend import cli as commands
from backend import effort
from backend.store import efforts, figures
from tests.backend.conftest import World
from tests.backend.test_effort import N_TASKS, PROJECT, accept, answer, drawn, on_sqlite, publish, square
from tests.backend.web import BEARER, serve

TWO_LABELS = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Lesion"/><Label value="Organ"/></BrushLabels></View>'
)


def populate(world: World) -> None:
    """Round 1: two accepted in 4 s and 6 s by 7, one corrected in 300 s by 8, one drawn in 40 s. Round 2: one."""
    world.label_studio.label_config = TWO_LABELS
    for task_id in range(1, N_TASKS + 1):
        world.label_studio.add_task(task_id)
    world.pull()
    publish(world, 1, Lesion=square(5), Organ=square(30))
    accept(world, 11, 1, lead_time_seconds=4.0)
    accept(world, 12, 2, lead_time_seconds=6.0)
    shown = world.label_studio.prediction_id(3)
    corrected = drawn(world, Lesion=square(10), Organ=square(30))
    answer(world, 13, 3, parent=shown, regions=corrected, lead_time_seconds=300.0, completed_by=8)
    answer(world, 14, 4, regions=drawn(world, Lesion=square(5)), lead_time_seconds=40.0, completed_by=8)
    publish(world, 2, version=2, Lesion=square(20))
    accept(world, 15, 5, lead_time_seconds=None)
    effort.measure(world.ctx, PROJECT)


def of(entries: list[dict[str, Any]], key: str, value: Any) -> dict[str, Any]:
    (found,) = [entry for entry in entries if entry[key] == value]
    return found


def test_the_summary_adds_up_what_was_done(world: World) -> None:
    populate(world)
    found = effort.summary(world.ctx, PROJECT)
    assert found["total"]["n"] == 5
    first = of(found["by_round"], "round", 1)
    assert (first["n"], first["share_with"], first["share_accepted"]) == (4, 0.75, pytest.approx(2 / 3))
    assert (first["seconds_with"], first["seconds_without"]) == (6.0, 40.0)
    assert first["dice"] == pytest.approx((1 + 1 + 1 + 1 + 0.5 + 1) / 6)
    second = of(found["by_round"], "round", 2)
    assert (second["n"], second["share_accepted"], second["seconds_with"]) == (1, 1.0, None)
    lesion, organ = (of(found["by_label"], "label", label) for label in ("Lesion", "Organ"))
    assert (lesion["n"], lesion["n_compared"], lesion["share_accepted"]) == (5, 4, 0.75)
    assert (organ["n"], organ["share_accepted"], organ["dice"]) == (3, 1.0, 1.0)
    assert {entry["annotator"]: entry["n"] for entry in found["by_annotator"]} == {7: 3, 8: 2}


def test_a_monitor_is_told_what_became_of_pre_annotations(world: World) -> None:
    populate(world)
    with world.ctx.store.read() as s:
        gauges = figures.gauges(s, lease_seconds=60, now=world.ctx.now())
    (told,) = [gauge.samples for gauge in gauges if gauge.name == "wardround_pre_annotations"]
    assert [(dict(labels)["outcome"], value) for labels, value in told] == [("accepted", 3), ("corrected", 1)]


@on_sqlite
def test_every_grouping_counts_every_annotation(world: World) -> None:
    populate(world)
    found = effort.summary(world.ctx, PROJECT)
    for name in ("by_round", "by_annotator"):
        assert sum(entry["n"] for entry in found[name]) == found["total"]["n"]


@on_sqlite
def test_a_lunch_break_does_not_move_the_median(world: World) -> None:
    def line(seconds: float) -> efforts.Line:
        return efforts.Line(1, 7, seconds, None, None, ("Lesion",))

    calm = effort.figures([line(seconds) for seconds in (9.0, 10.0, 11.0)])
    lunch = effort.figures([line(seconds) for seconds in (9.0, 10.0, 5000.0)])
    assert calm["seconds_without"] == lunch["seconds_without"] == 10.0


@on_sqlite
def test_nothing_measured_says_nothing(world: World) -> None:
    found = effort.summary(world.ctx, PROJECT)
    assert found["total"] == dict.fromkeys(effort.columns("round")[1:]) | {
        "n": 0, "n_with": 0, "n_compared": 0,
    }  # fmt: skip
    assert found["by_round"] == found["by_label"] == found["by_annotator"] == []


@on_sqlite
def test_the_command_and_the_api_tell_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_context", lambda: world.ctx)
    populate(world)

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(commands.cli, ["effort", str(PROJECT), *arguments], env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return done.stdout

    with serve(world) as client:
        told = client.get(f"/api/projects/{PROJECT}/effort", headers=BEARER).json()
        assert client.get(f"/api/projects/{PROJECT}/effort", headers={"Authorization": "none"}).status_code == 401
        assert client.get("/api/projects/44/effort", headers=BEARER).status_code == 404
    for by in ("round", "label", "annotator"):
        assert json.loads(run("--by", by, "--json")) == told[f"by_{by}"]
        lines = list(csv.DictReader(io.StringIO(run("--by", by, "--csv"))))
        assert [line["n"] for line in lines] == [str(entry["n"]) for entry in told[f"by_{by}"]]
        assert by in run("--by", by)
