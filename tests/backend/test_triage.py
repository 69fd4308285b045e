"""What a pre-annotation is worth is said before it is shown; one worth less than nothing keeps its place, unseen."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from backend import effort, predictions, report, rounds
from backend.label_studio.payloads import PredictRequest, parse_label_config, regions
from backend.store import predictions as rows
from backend.store import projects
from backend.tables import Task
from backend.wiring import served
from backend.wiring.finding import Wired
from tests.backend.conftest import World
from tests.backend.fakes import LABEL_CONFIG, true_mask
from tests.backend.publishing import ready

PROJECT = 1
N_TASKS = 60
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)

GOOD, BAD = 0.02, 0.6  # scores, nats


def is_bad(task_id: int) -> bool:
    return task_id % 3 == 0


def tasks(world: World) -> list[Task]:
    with world.ctx.store.read() as s:
        return list(projects.all_tasks(s, PROJECT))


def populate(world: World, group_size: int = 1, n: int = N_TASKS) -> int:
    """Tasks and a version that is sure where it is right and in doubt where it is wrong; the round to publish it."""
    for task_id in range(1, n + 1):
        world.label_studio.add_task(task_id, group=f"patient {task_id // group_size}")
    world.pull()
    config = parse_label_config(LABEL_CONFIG)
    with world.ctx.store.begin() as s:
        version = rows.add_version(s, PROJECT, parent_id=None, checkpoint_sha256="0" * 64, card={}, now=world.ctx.now())
        for task in projects.all_tasks(s, PROJECT):
            shown = np.roll(true_mask(task.id), 20 if is_bad(task.id) else 0, axis=0)
            row = {
                "task_id": task.id, "model_version_id": version.id, "score": BAD if is_bad(task.id) else GOOD,
                "regions_json": orjson.dumps(regions(config, {"Lesion": shown}, {})).decode(),
                "embedding": np.ones(4, "<f4").tobytes(), "created_at": world.ctx.now(),
            }  # fmt: skip
            rows.add(s, [row])
    return ready(world, version)


def answer_held_out(world: World) -> None:
    """All but two of the held-out tasks, with the true masks."""
    for task in [task for task in tasks(world) if task.held_out][2:]:
        world.label_studio.annotate(100 + task.id, task.id)
    world.pull()


def published(world: World) -> dict[int, list[Any]]:
    """The regions that Label Studio shows, by task."""
    name = world.label_studio.settings["model_version"]
    return {row["task"]: row["result"] for row in world.label_studio.predictions if row["model_version"] == name}


def queue(world: World) -> dict[int, dict[str, Any]]:
    return {row["task_id"]: row for row in report.queue_of(world.ctx, PROJECT)}


@pytest.fixture
def judged(world: World) -> World:
    """A published queue whose pre-annotations were judged."""
    round_id = populate(world)
    answer_held_out(world)
    assert rounds.run(world.ctx, round_id)
    return world


def test_what_is_bad_is_hidden_keeps_its_place_and_says_so(judged: World) -> None:
    places, shown = queue(judged), published(judged)
    assert set(places) == set(shown) == {task.id for task in tasks(judged)} - set(judged_by(judged))
    assert {key for key, place in places.items() if place["verdict"] == "redraw"} == {k for k in places if is_bad(k)}
    assert {place["verdict"] for key, place in places.items() if not is_bad(key)} == {"accept-check"}
    assert {key for key, result in shown.items() if not result} == {key for key in places if is_bad(key)}
    assert judged.label_studio.served_order(PROJECT) == sorted(places, key=lambda key: places[key]["rank"])
    assert all(0 <= place["dice_bound"] <= 1 for place in places.values())
    assert "held-out groups" in report.triage_in_words(judged.ctx, PROJECT)


def judged_by(world: World) -> list[int]:
    return [one.task_id for one in world.label_studio.annotations.values()]


def test_a_hidden_one_is_hidden_on_request_as_well(judged: World) -> None:
    asked = [task for key, task in judged.label_studio.task_rows.items() if key in queue(judged)]
    body = predictions.answer(judged.ctx, PredictRequest(PROJECT, LABEL_CONFIG, asked, None))
    results = json.loads(body)["results"]
    assert [bool(result["result"]) for result in results] == [not is_bad(task.id) for task in asked]


@on_sqlite
def test_what_doctor_pushes_again_is_hidden_as_it_was(judged: World) -> None:
    name, before = str(judged.project.published_version), published(judged)
    judged.label_studio.delete_model_version(PROJECT, name)
    judged.label_studio.unlabelled_tasks = lambda _project_id: sorted(before)  # type: ignore[attr-defined]
    [finding] = served.findings(Wired(judged.ctx, judged.project))
    assert finding.fix is not None
    finding.fix()
    assert published(judged) == before


@on_sqlite
@pytest.mark.parametrize("group_size", [1, 60])
def test_with_too_few_held_out_groups_nothing_is_hidden_and_the_queue_says_why(world: World, group_size: int) -> None:
    """None are answered; or many are, and all of one patient."""
    round_id = populate(world, group_size)
    if group_size > 1:
        with world.ctx.store.begin() as s:
            for task in projects.all_tasks(s, PROJECT):
                task.held_out = task.id % 2 == 0
        answer_held_out(world)
    assert rounds.run(world.ctx, round_id)
    assert all(published(world).values())
    assert {(place["dice_bound"], place["verdict"]) for place in queue(world).values()} == {(None, None)}
    assert "annotate more" in report.triage_in_words(world.ctx, PROJECT)


@on_sqlite
def test_switched_off_it_judges_nothing(world: World) -> None:
    world.ctx = replace(world.ctx, settings=world.ctx.settings.model_copy(update={"triage": False}))
    round_id = populate(world)
    answer_held_out(world)
    assert rounds.run(world.ctx, round_id)
    assert all(published(world).values())
    assert "WARDROUND_TRIAGE is off" in report.triage_in_words(world.ctx, PROJECT)


@on_sqlite
def test_only_held_out_answers_tell(world: World) -> None:
    """Of the others the version learnt, so it looks better on them than it is."""
    round_id = populate(world)
    for task in [task for task in tasks(world) if not task.held_out][:30]:
        world.label_studio.annotate(100 + task.id, task.id)
    world.pull()
    assert rounds.run(world.ctx, round_id)
    assert "there are 0" in report.triage_in_words(world.ctx, PROJECT)


@on_sqlite
def test_the_worst_label_of_an_answer_decides(world: World) -> None:
    """People painted both labels; the predictions hold one of them, and that one well."""
    two = LABEL_CONFIG.replace('<Label value="Lesion"/>', '<Label value="Lesion"/><Label value="Organ"/>')
    world.label_studio.label_config = two
    with world.ctx.store.begin() as s:
        projects.change(s, PROJECT, label_config=two)
    round_id = populate(world)
    answer_held_out(world)
    assert rounds.run(world.ctx, round_id)
    assert {place["verdict"] for place in queue(world).values()} == {"redraw"}


@on_sqlite
def test_what_nobody_sees_is_bad_to_show(world: World) -> None:
    round_id = populate(world)
    for task in [task for task in tasks(world) if task.held_out]:
        empty = np.zeros_like(true_mask(task.id))
        world.label_studio.annotate(100 + task.id, task.id, mask=empty)
    world.pull()
    assert rounds.run(world.ctx, round_id)
    assert {place["verdict"] for place in queue(world).values()} == {"redraw"}


@on_sqlite
def test_who_was_shown_nothing_started_from_nothing(judged: World) -> None:
    hidden, shown = (next(key for key in queue(judged) if is_bad(key) is bad) for bad in (True, False))
    for key in (hidden, shown):
        parent = judged.label_studio.prediction_id(key)
        judged.label_studio.annotate(900 + key, key, parent_prediction=parent)
    judged.pull()
    effort.measure(judged.ctx, PROJECT)
    found = {row["verdict"]: row for row in effort.rows_by(effort.summary(judged.ctx, PROJECT), "verdict")}
    assert (found["redraw"]["n"], found["redraw"]["n_with"]) == (1, 0)
    assert (found["accept-check"]["n_with"], found["accept-check"]["share_accepted"]) == (1, 1.0)
