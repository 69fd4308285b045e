"""What Label Studio sends, recorded and broken, and what we send it."""

import copy
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.label_studio import masks, payloads
from backend.label_studio.errors import BadMask, BadPayload, BadScore, UnknownLabel, UnsupportedLabelConfig

RECORDED = Path(__file__).resolve().parents[4] / "shared" / "label-studio-requests"
CONFIG_XML = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Lesion"/><Label value="Organ"/></BrushLabels></View>'
)
CONFIG = payloads.parse_label_config(CONFIG_XML)


def recorded(name):
    path = RECORDED / f"{name}.json"
    if not path.exists():
        pytest.skip(f"recorded requests are not beside the repository ({RECORDED})")
    return json.loads(path.read_text())["body"]


def predict_body():
    task = {"id": 7, "data": {"image": "/data/upload/1/a.png", "prompt": "a polyp"}}
    params = {"login": None, "password": None, "context": None}
    return {"tasks": [task], "project": "12.1795395924", "label_config": CONFIG_XML, "params": params}


def annotation_body():
    return {
        "action": "ANNOTATION_CREATED",
        "annotation": {
            "id": 3,
            "task": 7,
            "completed_by": 1,
            "lead_time": 3.5,
            "created_at": "2026-11-23T00:51:05.602484Z",
            "updated_at": "2026-11-23T00:51:06.000001Z",
            "was_cancelled": False,
            "parent_prediction": 49,
            "result": [{"id": "r1", "from_name": "brush"}],
        },
        "task": {"id": 7, "data": {"image": "/data/upload/1/a.png"}},
        "project": {"id": 12, "label_config": CONFIG_XML},
    }


# ------------------------------------------------------------------------------------------------ recorded requests


def test_recorded_setup_names_its_project():
    assert payloads.parse_setup(recorded("connect_setup")) == 1


@pytest.mark.parametrize(("name", "n_tasks"), [("test_predict", 1), ("retrieve_predictions_predict", 11)])
def test_recorded_predict_requests(name, n_tasks):
    body = recorded(name)
    request = payloads.parse_predict(body)
    assert request.project_id == 1
    assert request.context is None
    assert [task.id for task in request.tasks] == [task["id"] for task in body["tasks"]]
    assert len(request.tasks) == n_tasks
    assert all(task.image_url == task.data["image"] != "" for task in request.tasks)


@pytest.mark.parametrize("tool", ["keypoint", "rectangle"])
def test_recorded_smart_tools_bring_their_click(tool):
    request = payloads.parse_predict(recorded(f"interactive_{tool}_predict"))
    assert request.project_id == 12
    assert [task.id for task in request.tasks] == [55199]
    assert request.context is not None
    assert request.context["result"][0]["type"] == f"{tool}labels"


@pytest.mark.parametrize(
    ("name", "annotation_id", "task_id", "skipped", "lead_time_seconds", "parent", "n_regions"),
    [
        ("annotation_created", 2, 1, False, 2.5, None, 0),
        ("annotation_created_3", 3, 3, False, 3.0, 49, 1),
        ("annotation_created_with_basic_auth_backend", 8, 6, False, None, None, 1),
        ("annotation_updated", 3, 3, False, 3.0, 49, 2),
        ("annotation_skipped", 4, 4, True, None, None, 0),
    ],
)
def test_recorded_annotations(name, annotation_id, task_id, skipped, lead_time_seconds, parent, n_regions):
    event = payloads.parse_webhook(recorded(f"{name}_webhook"))
    (annotation,) = event.annotations
    assert (annotation.id, annotation.task_id, annotation.skipped) == (annotation_id, task_id, skipped)
    assert (annotation.lead_time_seconds, annotation.parent_prediction) == (lead_time_seconds, parent)
    assert len(annotation.regions) == n_regions
    assert (event.project_id, annotation.project_id, annotation.completed_by) == (1, 1, 1)
    assert [task.id for task in event.tasks] == [task_id]
    assert event.tasks[0].image_url.startswith("http://127.0.0.1:8080/data/local-files/")


def test_recorded_bulk_annotations_come_as_lists_and_hold_masks():
    event = payloads.parse_webhook(recorded("annotations_created_bulk_webhook"))
    assert event.action == "ANNOTATIONS_CREATED"
    assert [a.task_id for a in event.annotations] == [task.id for task in event.tasks]
    config = payloads.parse_label_config(event.label_config)
    painted = masks.masks_of(event.annotations[0].regions, config)
    assert {label: mask.shape for label, mask in painted.items()} == {"Lesion": (256, 256)}
    assert 0 < painted["Lesion"].sum() < 256 * 256


@pytest.mark.parametrize(
    ("name", "action", "annotation_ids", "task_ids", "new_task_ids"),
    [
        ("annotations_deleted", "ANNOTATIONS_DELETED", [3], [], []),
        ("tasks_deleted", "TASKS_DELETED", [], [13], []),
        ("tasks_created", "TASKS_CREATED", [], [], [13]),
        ("project_updated", "PROJECT_UPDATED", [], [], []),
        ("start_training", "START_TRAINING", [], [], []),
        ("auto_train_start_training", "START_TRAINING", [], [], []),
    ],
)
def test_recorded_events_about_tasks_and_projects(name, action, annotation_ids, task_ids, new_task_ids):
    event = payloads.parse_webhook(recorded(f"{name}_webhook"))
    assert (event.action, event.project_id) == (action, 1)
    assert (event.deleted_annotation_ids, event.deleted_task_ids) == (annotation_ids, task_ids)
    assert [task.id for task in event.tasks] == new_task_ids
    assert event.annotations == []


def test_every_recorded_request_with_a_body_is_read_here():
    recorded("versions")
    parsers = {"_webhook": payloads.parse_webhook, "_predict": payloads.parse_predict, "_setup": payloads.parse_setup}
    for path in RECORDED.glob("*.json"):
        body = json.loads(path.read_text())["body"]
        parser = next((parser for ending, parser in parsers.items() if path.stem.endswith(ending)), None)
        assert (parser is None) == (body is None), path.name
        if parser:
            parser(body)


# -------------------------------------------------------------------------------------------------- broken requests


def test_an_annotation_is_read_field_by_field():
    (annotation,) = payloads.parse_webhook(annotation_body()).annotations
    assert annotation == payloads.Annotation(
        id=3,
        task_id=7,
        project_id=12,
        completed_by=1,
        lead_time_seconds=3.5,
        created_at=datetime(2026, 11, 23, 0, 51, 5, 602484, tzinfo=UTC),
        updated_at=datetime(2026, 11, 23, 0, 51, 6, 1, tzinfo=UTC),
        skipped=False,
        parent_prediction=49,
        regions=[{"id": "r1", "from_name": "brush"}],
    )


@pytest.mark.parametrize("project", [{"id": 12}, None, {}, "x", {"id": "12"}])
def test_an_unknown_action_is_an_ordinary_event_without_content(project):
    event = payloads.parse_webhook({"action": "LABEL_LINK_CREATED", "project": project})
    assert event == payloads.Event("LABEL_LINK_CREATED", 12 if project == {"id": 12} else 0)


def test_an_event_of_a_project_without_a_brush_is_still_an_event():
    body = annotation_body() | {"project": {"id": 12, "label_config": "<View/>"}}
    (task,) = payloads.parse_webhook(body).tasks
    assert task.image_url == ""


@pytest.mark.parametrize("data", [{}, {"image": None}, {"image": 3}, {"image": ["a", "b"]}])
def test_a_task_without_an_image_stands_beside_the_others(data):
    body = predict_body()
    body["tasks"].append({"id": 8, "data": data})
    assert [task.image_url for task in payloads.parse_predict(body).tasks] == ["/data/upload/1/a.png", ""]


def test_a_user_may_be_nested():
    body = annotation_body()
    body["annotation"]["completed_by"] = {"id": 5, "email": "a@b.c"}
    assert payloads.parse_webhook(body).annotations[0].completed_by == 5


def changed(body, path, value):
    body = copy.deepcopy(body)
    *parents, last = path
    inner = body
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return body


@pytest.mark.parametrize("body", [None, [], "x", 3, {}])
@pytest.mark.parametrize("parse", [payloads.parse_predict, payloads.parse_setup, payloads.parse_webhook])
def test_a_body_of_another_kind_is_refused(parse, body):
    with pytest.raises(BadPayload):
        parse(body)


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        (["action"], None, "action"),
        (["project"], None, "project"),
        (["project", "id"], True, "project.id"),
        (["project", "label_config"], 5, "project.label_config"),
        (["annotation"], None, "annotation"),
        (["annotation"], [1], r"annotation\[0\]"),
        (["annotation", "id"], 0, "annotation.id"),
        (["annotation", "task"], "7", "annotation.task"),
        (["annotation", "updated_at"], "yesterday", "annotation.updated_at"),
        (["annotation", "updated_at"], "2026-11-23T00:51:05", "with its zone"),
        (["annotation", "lead_time"], -1, "annotation.lead_time"),
        (["annotation", "lead_time"], float("nan"), "annotation.lead_time"),
        (["annotation", "result"], [3], r"annotation.result\[0\]"),
        (["task"], 7, "task"),
        (["task", "data"], [], "task.data"),
    ],
)
def test_a_broken_event_names_the_broken_field(path, value, name):
    with pytest.raises(BadPayload, match=name):
        payloads.parse_webhook(changed(annotation_body(), path, value))


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        (["project"], 12, "project"),
        (["project"], "x.1", "id of the project"),
        (["project"], "0.1", "id of the project"),
        (["project"], "²", "id of the project"),
        (["project"], "9" * 400, "id of the project"),
        (["tasks"], {}, "tasks"),
        (["tasks", 0], None, r"tasks\[0\]"),
        (["tasks", 0, "id"], -4, "task.id"),
        (["label_config"], None, "label_config"),
        (["params"], [1], "params"),
        (["params", "context"], "x", "params.context"),
    ],
)
def test_a_broken_predict_request_names_the_broken_field(path, value, name):
    with pytest.raises(BadPayload, match=name):
        payloads.parse_predict(changed(predict_body(), path, value))


def test_an_unknown_label_config_is_told_what_is_needed():
    with pytest.raises(UnsupportedLabelConfig, match="BrushLabels"):
        payloads.parse_predict(predict_body() | {"label_config": "<View/>"})


def test_no_message_repeats_what_was_sent():
    body = changed(annotation_body(), ["annotation", "task"], "s3cret")
    with pytest.raises(BadPayload) as caught:
        payloads.parse_webhook(body)
    assert "s3cret" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------ what we send


def painted(top=0):
    mask = np.zeros((9, 7), dtype=bool)
    mask[top : top + 2, 1:4] = True
    return mask


def test_regions_come_back_as_the_masks_they_were_made_of():
    sent = {"Organ": painted(4), "Lesion": painted()}
    regions = payloads.regions(CONFIG, sent, {"Lesion": 0.8})
    assert [region["value"]["brushlabels"] for region in regions] == [["Lesion"], ["Organ"]]
    assert [region.get("score") for region in regions] == [0.8, None]
    assert {(region["original_height"], region["original_width"]) for region in regions} == {(9, 7)}
    back = masks.masks_of(regions, CONFIG)
    assert all(np.array_equal(back[label], mask) for label, mask in sent.items())
    json.dumps(regions, allow_nan=False)


MIXED = payloads.parse_label_config(
    '<View><Image name="image" value="$image"/><PolygonLabels name="outline" toName="image"><Label value="Organ"/>'
    '<Label value="Lesion"/></PolygonLabels>'
    '<BrushLabels name="brush" toName="image"><Label value="Lesion"/></BrushLabels></View>'
)


def test_each_label_is_drawn_with_its_own_control_and_a_polygon_label_piece_by_piece():
    sent = {"Lesion": painted(), "Organ": painted(1) | painted(6)}
    regions = payloads.regions(MIXED, sent, {"Lesion": 0.8, "Organ": 0.6})
    assert [(region["from_name"], region["type"], region["score"]) for region in regions] == [
        ("outline", "polygonlabels", 0.6),
        ("outline", "polygonlabels", 0.6),
        ("brush", "brushlabels", 0.8),
    ]
    assert len({region["id"] for region in regions}) == 3
    back = masks.masks_of(regions, MIXED, expected_size=(9, 7))
    assert all(np.array_equal(back[label], mask) for label, mask in sent.items())
    json.dumps(regions, allow_nan=False)


def test_an_empty_mask_gives_no_region():
    assert payloads.regions(CONFIG, {"Lesion": np.zeros((4, 4), bool)}, {}) == []


def test_region_ids_are_the_same_for_the_same_masks_and_differ_otherwise():
    def ids(lesion, organ):
        return [region["id"] for region in payloads.regions(CONFIG, {"Lesion": lesion, "Organ": organ}, {})]

    assert ids(painted(), painted()) == ids(painted(), painted())
    assert len({*ids(painted(), painted()), *ids(painted(1), painted(1))}) == 4


@pytest.mark.parametrize(("region_masks", "scores"), [({"Bone": painted()}, {}), ({}, {"Bone": 0.5})])
def test_a_label_the_config_does_not_have_is_refused_before_label_studio_drops_it(region_masks, scores):
    with pytest.raises(UnknownLabel, match=r"Bone.*Lesion"):
        payloads.regions(CONFIG, region_masks, scores)


@pytest.mark.parametrize("score", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_score_outside_0_to_1_is_refused_before_label_studio_drops_it(score):
    with pytest.raises(BadScore):
        payloads.prediction(1, "v1", [], score)
    with pytest.raises(BadScore):
        payloads.regions(CONFIG, {"Lesion": painted()}, {"Lesion": score})


@pytest.mark.parametrize("config", [CONFIG, MIXED])
@pytest.mark.parametrize("label", ["Lesion", "Organ"])
def test_a_mask_that_is_not_bool_is_refused(config, label):
    with pytest.raises(BadMask):
        payloads.regions(config, {label: painted().astype(np.uint8)}, {})


def test_a_prediction_is_what_the_import_takes():
    assert payloads.prediction(7, "wardround-r1-v1", [], 0.25) == {
        "task": 7,
        "model_version": "wardround-r1-v1",
        "score": 0.25,
        "result": [],
    }


@given(st.integers(1, 10_000_000), st.data())
def test_a_better_rank_has_a_lower_ls_score_strictly_inside_0_and_1(size, data):
    rank = data.draw(st.integers(0, size - 1))
    score = payloads.ls_score(rank, size)
    assert 0 < score < 1
    if rank + 1 < size:
        assert score < payloads.ls_score(rank + 1, size)


def test_100_000_ranks_stay_apart_even_in_single_precision_and_through_json():
    scores = [payloads.ls_score(rank, 100_000) for rank in range(100_000)]
    assert (np.diff(np.array(scores, dtype=np.float32)) > 0).all()
    assert json.loads(json.dumps(scores)) == scores


@pytest.mark.parametrize(("rank", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_a_rank_outside_its_queue_is_refused(rank, size):
    with pytest.raises(BadScore, match="rank"):
        payloads.ls_score(rank, size)
