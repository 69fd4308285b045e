"""The scripted annotator does what the editor would, against a real Label Studio."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter import brush

from demo import data, project
from demo.annotator import Annotator, dice, lead_time_seconds, regions
from demo.errors import DemoError
from demo.label_studio import LabelStudioServer
from demo.project import DemoProject


@pytest.fixture(scope="module")
def made(label_studio: LabelStudioServer, tmp_path_factory) -> DemoProject:
    pairs = data.load(None, 5, tmp_path_factory.mktemp("phantoms")).pairs
    with label_studio.client() as http:
        return project.create(http, "annotator", pairs)


def served(annotator: Annotator) -> dict[str, Any]:
    task = annotator.next_task()
    assert task is not None
    return task


def push(http, task_id: int, mask: np.ndarray) -> int:
    body = {"task": task_id, "model_version": "v1", "score": 0.5, "result": regions(mask)}
    return http.post("/api/predictions", json=body).raise_for_status().json()["id"]


def test_each_task_shows_the_image_of_its_pair_and_names_its_group(label_studio, made):
    with label_studio.client() as http:
        for task_id, pair in made.pairs.items():
            task_data = http.get(f"/api/tasks/{task_id}").json()["data"]
            assert http.get(task_data["image"]).content == pair.image.read_bytes()
            assert task_data["group"] == pair.group
            assert "prompt" not in task_data
    assert len(made.pairs) == 5


def test_the_answer_is_the_true_mask_with_the_pre_annotation_as_parent(label_studio, made):
    with label_studio.client() as http:
        annotator = Annotator(http, made)
        task = served(annotator)
        truth = data.true_mask(made.pairs[task["id"]])
        half = truth.copy()
        half[:, : truth.shape[1] // 2] = False
        prediction = push(http, task["id"], half)
        http.patch(
            f"/api/projects/{made.id}", json={"model_version": "v1", "show_collab_predictions": True}
        ).raise_for_status()
        answer = annotator.answer(served(annotator))
        stored = http.get(f"/api/annotations/{answer.annotation_id}").json()

    assert answer.task_id == task["id"]
    assert answer.parent_prediction == stored["parent_prediction"] == prediction
    assert answer.agreement == pytest.approx(dice(half, truth))
    assert stored["lead_time"] == answer.lead_time_seconds
    value = stored["result"][0]["value"]
    drawn = brush.decode_rle(value["rle"]).reshape(*truth.shape, 4)[..., 3]
    assert np.array_equal(drawn, np.where(truth, 255, 0))


def test_an_annotated_task_is_not_served_again_and_the_end_is_none(label_studio, made):
    with label_studio.client() as http:
        annotator = Annotator(http, made)
        served = [answer.task_id for answer in annotator.work(100)]
        assert len(set(served)) == len(served)
        assert set(served) <= set(made.pairs)
        assert annotator.next_task() is None
        assert annotator.work(1) == []


def test_an_empty_mask_is_an_annotation_without_regions():
    assert regions(np.zeros((4, 6), bool)) == []


def test_lead_time_grows_with_what_must_be_corrected():
    assert lead_time_seconds(1.0) < lead_time_seconds(0.4) < lead_time_seconds(0.0) == lead_time_seconds(None)


def test_dice_of_equal_disjoint_and_empty_masks():
    mask = np.eye(4, dtype=bool)
    assert dice(mask, mask) == 1.0
    assert dice(mask, ~mask) == 0.0
    assert dice(mask & ~mask, mask & ~mask) == 1.0


def test_a_refusal_is_an_error_with_its_reason(label_studio, made):
    with label_studio.client() as http:
        nowhere = DemoProject(id=10**9, pairs=made.pairs)
        http.headers["Authorization"] = "Token wrong"
        with pytest.raises(DemoError, match="401"):
            Annotator(http, nowhere).next_task()
