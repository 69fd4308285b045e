"""The search as a journey: every annotation judged once, what was judged is kept, and the tab holds what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from backend import cli as commands
from backend import crossfit, label_errors
from backend.crossfit import Opinion
from backend.disconnect import disconnect
from backend.errors import TooEarly
from backend.store import annotations as answers
from backend.store import projects
from evidence.label_errors import Disagreement
from model import Example
from tests.backend.conftest import World
from tests.backend.connectable import Connectable, titles
from tests.backend.fakes import SIDE, true_mask
from tests.backend.test_rounds import PROJECT

N_TASKS = 12
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


@pytest.fixture
def annotated(world: World) -> World:
    """Twelve annotated tasks of six patients; task 5 with an empty mask."""
    world.label_studio = Connectable()
    world.ctx = replace(world.ctx, label_studio=world.label_studio)  # type: ignore[arg-type]
    for task_id in range(1, N_TASKS + 1):
        world.label_studio.add_task(task_id, group=f"patient {task_id % 6}")
    for task_id in range(1, N_TASKS + 1):
        mask = np.zeros((SIDE, SIDE), dtype=bool) if task_id == 5 else true_mask(task_id)
        world.label_studio.annotate(100 + task_id, task_id, mask=mask)
    world.pull()
    return world


@pytest.fixture
def folds_judged(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which folds were trained for; an empty mask is what the model contradicts. The n-th call fails where set to."""
    judged: list[int] = []

    def judge_fold(_start: Any, examples: list[Example], fold_of: Any, fold: int, *_: Any, **__: Any) -> Any:
        judged.append(fold)
        from model import read_mask

        empty = {at: not read_mask(examples[at].mask).any() for at in np.flatnonzero(fold_of == fold).tolist()}
        return {
            at: Opinion(0.5 + at / 100, Disagreement(0.9 if bad else at / 1000, 0.0 if bad else 0.9, 0.5, 0.0))
            for at, bad in empty.items()
        }

    monkeypatch.setattr(crossfit, "judge_fold", judge_fold)
    return judged


def views(world: World) -> list[dict[str, Any]]:
    assert isinstance(world.label_studio, Connectable)
    return world.label_studio.views


@on_sqlite
def test_a_real_search_judges_every_annotation_once(annotated: World) -> None:
    heard: list[tuple[int, int, int]] = []
    left_out = label_errors.search(
        annotated.ctx, PROJECT, n_folds=2, max_steps=2, on_progress=lambda *at: heard.append(at)
    )
    found = label_errors.listed(annotated.ctx, PROJECT)
    assert left_out == {}
    assert heard == [(0, 1, 2), (0, 2, 2), (1, 1, 2), (1, 2, 2)]
    assert sorted(row["annotation_id"] for row in found) == list(range(101, 101 + N_TASKS))
    assert [row["rank"] for row in found] == list(range(N_TASKS))
    assert [row["score"] for row in found] == sorted((row["score"] for row in found), reverse=True)
    assert found[0]["url"] == f"http://label-studio.test/projects/{PROJECT}/data?task={found[0]['task_id']}"
    assert annotated.ctx.files.works() == []
    assert annotated.ctx.serving.version(PROJECT) is None, "the models of a search serve nobody"


def test_another_search_takes_the_place_of_the_last(annotated: World, folds_judged: list[int]) -> None:
    for _ in range(2):
        label_errors.search(annotated.ctx, PROJECT)
        found = label_errors.listed(annotated.ctx, PROJECT)
        assert (len(found), found[0]["annotation_id"]) == (N_TASKS, 105)
    assert folds_judged == [0, 1, 2, 0, 1, 2]


@on_sqlite
def test_a_search_that_was_stopped_trains_no_fold_twice(
    annotated: World, folds_judged: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = crossfit.judge_fold

    def stop_at_the_last(*arguments: Any, **named: Any) -> Any:
        if arguments[3] == 2:
            raise KeyboardInterrupt
        return sound(*arguments, **named)

    monkeypatch.setattr(crossfit, "judge_fold", stop_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        label_errors.search(annotated.ctx, PROJECT)
    assert label_errors.listed(annotated.ctx, PROJECT) == []
    monkeypatch.setattr(crossfit, "judge_fold", sound)
    label_errors.search(annotated.ctx, PROJECT)
    assert folds_judged == [0, 1, 2]
    assert len(label_errors.listed(annotated.ctx, PROJECT)) == N_TASKS


@on_sqlite
def test_what_was_kept_of_other_annotations_is_of_no_use(
    annotated: World, folds_judged: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped search leaves its folds; after an annotation changed they say nothing."""
    monkeypatch.setattr(annotated.ctx.files, "remove_work", lambda _name: None)
    label_errors.search(annotated.ctx, PROJECT)
    annotated.label_studio.annotate(105, 5)
    annotated.pull()
    label_errors.search(annotated.ctx, PROJECT)
    assert folds_judged == [0, 1, 2, 0, 1, 2]


@on_sqlite
def test_what_was_changed_or_deleted_since_is_not_shown_to_a_reviewer(
    annotated: World, folds_judged: list[int]
) -> None:
    label_errors.search(annotated.ctx, PROJECT)
    annotated.label_studio.annotate(105, 5)
    annotated.pull()
    with annotated.ctx.store.begin() as s:
        answers.mark_deleted(s, PROJECT, [106], annotated.ctx.now())
    assert [row["annotation_id"] for row in label_errors.listed(annotated.ctx, PROJECT) if row["changed"]] == [105]
    left = {row["annotation_id"] for row in label_errors.listed(annotated.ctx, PROJECT, unchanged=True)}
    assert left == set(range(101, 101 + N_TASKS)) - {105, 106}


@on_sqlite
def test_too_few_patients_to_train_apart_are_said(world: World) -> None:
    world.label_studio.add_task(1)
    world.label_studio.annotate(101, 1)
    world.pull()
    with pytest.raises(TooEarly, match="needs 3 annotated groups, and there are 1"):
        label_errors.search(world.ctx, PROJECT)


@on_sqlite
def test_a_broken_image_is_left_out_by_name(annotated: World, folds_judged: list[int]) -> None:
    annotated.label_studio.add_task(90, content=b"\xff\xd8\xff no picture")
    annotated.label_studio.annotate(190, 90)
    annotated.label_studio.annotate(101, 1, mask=np.ones((SIDE, SIDE + 1), dtype=bool))
    annotated.pull()
    assert set(label_errors.search(annotated.ctx, PROJECT)) == {"90", "annotation 101"}
    assert len(label_errors.listed(annotated.ctx, PROJECT)) == N_TASKS - 1


# --------------------------------------------------------------------------------------------------------- the tab


@on_sqlite
def test_the_tab_holds_the_likeliest_and_is_made_once(annotated: World, folds_judged: list[int]) -> None:
    label_errors.search(annotated.ctx, PROJECT)
    assert label_errors.publish(annotated.ctx, PROJECT, 1) == 1
    [tab] = views(annotated)
    assert (tab["data"]["title"], tab["data"]["filters"]["items"][0]["value"]) == ("Likely errors", "105")
    label_errors.publish(annotated.ctx, PROJECT, 1)
    assert views(annotated) == [tab]
    annotated.label_studio.annotate(105, 5)
    annotated.pull()
    label_errors.publish(annotated.ctx, PROJECT, 2)
    [after] = views(annotated)
    assert after["id"] == tab["id"]
    assert "105" not in after["data"]["filters"]["items"][0]["value"].split()


@on_sqlite
def test_disconnecting_takes_the_tab_away_and_leaves_other_peoples(annotated: World, folds_judged: list[int]) -> None:
    mine = {"title": "Likely errors", "ordering": ["tasks:id"]}
    annotated.ctx.label_studio.create_tab(PROJECT, mine)
    label_errors.search(annotated.ctx, PROJECT)
    label_errors.publish(annotated.ctx, PROJECT, 5)
    assert titles(views(annotated)) == ["Likely errors", "Likely errors"]
    disconnect(annotated.ctx, PROJECT)
    assert [view["data"] for view in views(annotated)] == [mine]


@on_sqlite
def test_the_command_searches_shows_and_publishes(
    annotated: World, folds_judged: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_context", lambda: annotated.ctx)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(commands.cli, ["label-errors", str(PROJECT), *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    rows = json.loads(run("--json", "--publish", "--most", "3"))
    assert (len(rows), rows[0]["annotation_id"]) == (3, 105)
    assert titles(views(annotated)) == ["Likely errors"]
    assert json.loads(run("--json", "--stored", "--most", "3")) == rows
    assert folds_judged == [0, 1, 2]
    assert "105" in run("--stored")


def test_a_project_that_is_not_connected_has_none(world: World) -> None:
    with world.ctx.store.begin() as s:
        projects.change(s, PROJECT, disconnected_at=world.ctx.now())
    for ask in (label_errors.search, label_errors.listed):
        with pytest.raises(Exception, match="connect"):
            ask(world.ctx, PROJECT)
