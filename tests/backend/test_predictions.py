"""Journey 1: stored answers first, misses computed once, and one result per task whatever happens."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backend import predictions, rounds
from backend.errors import NotConnected
from backend.label_studio.errors import LabelStudioUnreachable
from backend.label_studio.masks import masks_of
from backend.label_studio.payloads import PredictRequest, parse_label_config
from backend.serving import Served
from backend.store import predictions as rows
from backend.store import projects
from model.segmentation import Segmentation
from tests.backend.conftest import World
from tests.backend.fakes import LABEL_CONFIG, SIDE, START
from tests.backend.test_rounds import annotate_both_sides, populate, run_first_round

PROJECT = 1


def ask(world: World, *task_ids: int, project_id: int = PROJECT) -> list[dict[str, Any]]:
    tasks = [world.label_studio.task_rows[task_id] for task_id in task_ids]
    body = predictions.answer(world.ctx, PredictRequest(project_id, LABEL_CONFIG, tasks, None))
    results: list[dict[str, Any]] = json.loads(body)["results"]
    return results


@pytest.fixture
def served(world: World) -> World:
    """A world with a serving version and a published queue."""
    populate(world)
    run_first_round(world)
    annotate_both_sides(world)
    assert rounds.run(world.ctx, rounds.open_now(world.ctx, PROJECT))
    return world


def test_before_the_first_version_every_task_gets_an_empty_answer(world: World) -> None:
    populate(world, 3)
    assert [result["result"] for result in ask(world, 3, 1)] == [[], []]


def test_stored_predictions_are_answered_without_the_model(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.ctx.serving, "load", lambda _version: pytest.fail("the model was asked"))
    assert len(ask(served, 1, 2, 3)) == 3


def test_only_what_is_missing_is_computed_and_only_once(served: World) -> None:
    served.label_studio.add_task(90)
    served.label_studio.add_task(91)
    served.pull()
    version = served.ctx.serving.version(PROJECT)
    assert version is not None
    served.label_studio.fetched.clear()
    first = ask(served, 90, 1)
    assert len(served.label_studio.fetched) == 1
    with served.ctx.store.read() as s:
        assert set(rows.of_tasks(s, version.id, [90, 91])) == {90}
    assert ask(served, 90, 1) == first
    assert len(served.label_studio.fetched) == 1


def test_answers_come_in_the_order_of_the_question_with_the_published_name(served: World) -> None:
    forward, backward = ask(served, 1, 2, 3), ask(served, 3, 2, 1)
    assert forward == backward[::-1]
    assert {result["model_version"] for result in forward} == {served.project.published_version}


def test_an_answer_on_request_does_not_disturb_the_queue(served: World) -> None:
    queue = served.label_studio.served_order(PROJECT)
    scores = [result["score"] for result in ask(served, *queue)]
    assert scores == sorted(scores)
    assert len(set(scores)) == len(scores)
    served.label_studio.add_task(90)
    served.pull()
    assert ask(served, 90)[0]["score"] > max(scores)


def test_a_broken_image_gets_an_empty_answer_and_the_others_theirs(served: World) -> None:
    served.label_studio.add_task(90, content=b"\xff\xd8\xff no picture")
    served.label_studio.add_task(91)
    served.pull()
    answers = ask(served, 90, 91)
    assert answers[0]["result"] == []
    with served.ctx.store.read() as s:
        assert projects.task(s, 90).problem
        assert projects.task(s, 91).problem is None


def test_a_prompt_too_long_for_the_model_is_its_tasks_problem_alone(served: World) -> None:
    fake = served.label_studio
    fake.add_task(90)
    fake.add_task(91)
    fake.task_rows[90] = replace(fake.task_rows[90], data=fake.task_rows[90].data | {"prompt": "very " * 90 + "long"})
    served.pull()
    answers = ask(served, 90, 91)
    assert answers[0]["result"] == []
    with served.ctx.store.read() as s:
        assert "shorten it" in (projects.task(s, 90).problem or "")
        assert projects.task(s, 91).problem is None


def test_a_task_that_label_studio_made_this_second_gets_an_empty_answer(served: World) -> None:
    served.label_studio.add_task(92)
    assert ask(served, 92)[0]["result"] == []


def test_label_studio_down_is_said_not_hidden(served: World) -> None:
    served.label_studio.add_task(90)
    served.pull()
    served.label_studio.down = True
    with pytest.raises(LabelStudioUnreachable):
        ask(served, 90)
    served.label_studio.down = False
    with served.ctx.store.read() as s:
        assert projects.task(s, 90).problem is None, "a pause of Label Studio is not the task's fault"


def test_a_project_that_is_not_connected_is_told_how_to_be(world: World) -> None:
    populate(world, 1)
    with pytest.raises(NotConnected, match="wardround connect 44"):
        ask(world, 1, project_id=44)


def test_regions_have_the_natural_resolution_of_the_image(served: World) -> None:
    config = parse_label_config(LABEL_CONFIG)
    painted = [result["result"] for result in ask(served, *served.label_studio.task_rows) if result["result"]]
    for regions in painted:
        assert masks_of(regions, config)["Lesion"].shape == (SIDE, SIDE)


def drawn_as(*levels: float) -> list[Segmentation]:
    """A label for each level: its draws say nothing but that probability everywhere."""
    maps = [np.full((2, SIDE, SIDE), level, np.float32) for level in levels]
    return [Segmentation(draws[0], draws, np.ones(4, np.float32)) for draws in maps]


@pytest.mark.parametrize(
    ("levels", "stratum"),
    [((0.9, 0.6), "Cyst"), ((0.6, 0.9), "Lesion"), ((0.6, 0.6), "Lesion"), ((0.9, 0.4), "Cyst"), ((0.1, 0.4), "")],
)
def test_a_prediction_names_the_label_that_its_score_is_of(
    world: World, monkeypatch: pytest.MonkeyPatch, levels: tuple[float, float], stratum: str
) -> None:
    config = LABEL_CONFIG.replace('<Label value="Lesion"/>', '<Label value="Lesion"/><Label value="Cyst"/>')
    with world.ctx.store.begin() as s:
        projects.change(s, PROJECT, label_config=config, prompts={"Lesion": "a disc", "Cyst": "a ring"})
        version_id = rows.add_version(s, PROJECT, parent_id=None, checkpoint_sha256="0" * 64, card={}, now=START).id
        version = rows.version(s, version_id)
    world.label_studio.label_config = config
    populate(world, 1)
    by_label = dict(zip(("Lesion", "Cyst"), drawn_as(*levels), strict=True))
    segmenter = SimpleNamespace(segment_labels=lambda *_args, **_named: [by_label])
    with world.ctx.store.read() as s:
        tasks = list(projects.tasks(s, [1]).values())
    predictions.compute(world.ctx, world.project, Served(version, segmenter), tasks)  # type: ignore[arg-type]
    with world.ctx.store.read() as s:
        [scored] = rows.scored(s, version_id, [1], embeddings=False).values()
    assert (scored.stratum, scored.embedding) == (stratum, None)
