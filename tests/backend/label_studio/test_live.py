"""The queue, predictions and the pull against a real Label Studio: what it stores, serves and drops."""

from datetime import UTC, datetime

import numpy as np
import pytest

from backend.label_studio import masks, payloads
from backend.label_studio.errors import LabelStudioRefused, PredictionsDropped
from tests.backend.label_studio.live import CONFIG, HEIGHT, WIDTH, blob, publish, serve_next, submit

# ---------------------------------------------------------------------------------------------------------- the queue


def test_the_label_stream_serves_our_ranking_and_served_order_says_so(client, person, project_id, ranking):
    publish(client, project_id, ranking)
    for done, task_id in enumerate(ranking):
        assert client.served_order(project_id) == ranking[done:]
        assert serve_next(person, project_id)["id"] == task_id
        submit(person, task_id)
    assert client.served_order(project_id) == []


def test_another_model_version_shows_in_the_served_order_at_once(client, person, project_id, ranking):
    publish(client, project_id, ranking)
    publish(client, project_id, ranking[::-1], "wardround-r2-v2")
    assert client.served_order(project_id) == ranking[::-1]
    assert serve_next(person, project_id)["id"] == ranking[-1]
    client.update_project(project_id, model_version="wardround-r1-v1")
    assert client.served_order(project_id) == ranking


def test_predictions_of_a_version_that_is_not_the_project_s_serve_nothing(client, project_id, ranking):
    publish(client, project_id, ranking)
    client.update_project(project_id, model_version="")
    assert client.served_order(project_id) == []


def test_a_model_version_can_be_deleted_and_an_unknown_one_not_chosen(client, project_id, ranking):
    publish(client, project_id, ranking)
    publish(client, project_id, ranking[::-1], "wardround-r2-v2")
    client.delete_model_version(project_id, "wardround-r1-v1")
    assert client.served_order(project_id) == ranking[::-1]
    with pytest.raises(LabelStudioRefused, match="model_version"):
        client.update_project(project_id, model_version="wardround-r1-v1")


def test_two_annotators_work_down_the_same_list(client, person, colleague, project_id, ranking):
    publish(client, project_id, ranking)
    assert serve_next(person, project_id)["id"] == ranking[0]
    assert serve_next(colleague, project_id)["id"] == ranking[1]  # the first is locked
    assert client.served_order(project_id) == ranking
    submit(person, ranking[0], was_cancelled=True)
    assert serve_next(person, project_id)["id"] == ranking[2]  # skipped by this person, open for others
    assert client.served_order(project_id) == ranking


def test_a_task_stays_in_the_list_until_it_has_all_its_annotations(client, person, colleague, project_id, ranking):
    publish(client, project_id, ranking, maximum_annotations=2)
    submit(person, serve_next(person, project_id)["id"])
    assert client.served_order(project_id) == ranking
    submit(colleague, serve_next(colleague, project_id)["id"])
    assert client.served_order(project_id) == ranking[1:]


# ---------------------------------------------------------------------------------------------------------- predictions


def dropped(ranking, **changes):
    region = payloads.regions(CONFIG, {"Lesion": blob()}, {})[0] | changes
    good, bad = (payloads.prediction(task_id, "v1", [], 0.5) for task_id in ranking[:2])
    return [good, bad | {"result": [region]}]


@pytest.mark.parametrize(
    "changes",
    [
        {"from_name": "pencil"},
        {"to_name": "scan"},
        {"value": {"format": "rle", "rle": [0], "brushlabels": ["Bone"]}},
    ],
)
def test_a_prediction_dropped_in_silence_is_raised(client, project_id, ranking, changes):
    with pytest.raises(PredictionsDropped, match="1 of 2"):
        client.import_predictions(project_id, dropped(ranking, **changes))


def test_a_score_out_of_range_would_be_dropped(client, project_id, ranking):
    with pytest.raises(PredictionsDropped):
        client.import_predictions(project_id, [payloads.prediction(ranking[0], "v1", [], 0.5) | {"score": 1.7}])


def test_a_prediction_for_an_unknown_task_is_refused(client, project_id):
    with pytest.raises(LabelStudioRefused, match="400"):
        client.import_predictions(project_id, [payloads.prediction(10**9, "v1", [], 0.5)])


def test_the_served_prediction_is_the_mask_that_was_pushed(client, person, project_id, ranking):
    publish(client, project_id, ranking, show_collab_predictions=True)
    (prediction,) = serve_next(person, project_id)["predictions"]
    assert prediction["model_version"] == "wardround-r1-v1"
    assert prediction["score"] == payloads.ls_score(0, len(ranking))
    painted = masks.masks_of(prediction["result"], CONFIG, expected_size=(HEIGHT, WIDTH))
    assert np.array_equal(painted["Lesion"], blob(0))


# ----------------------------------------------------------------------------------------------------------- the pull


def test_a_submitted_mask_is_pulled_back_as_it_was_painted(client, person, project_id, ranking):
    publish(client, project_id, ranking, show_collab_predictions=True)
    served = serve_next(person, project_id)
    corrected = {"Lesion": blob(7), "Organ": blob(20)}
    regions = payloads.regions(CONFIG, corrected, {})
    annotation_id = submit(person, served["id"], regions, parent_prediction=served["predictions"][0]["id"])
    pulled = {item.task.id: item for item in client.tasks(project_id)}
    assert set(pulled) == set(ranking)
    item = pulled[served["id"]]
    (annotation,) = item.annotations
    assert (item.is_labeled, annotation.id, annotation.skipped) == (True, annotation_id, False)
    assert (annotation.lead_time_seconds, annotation.parent_prediction) == (2.5, served["predictions"][0]["id"])
    assert annotation.completed_by is not None
    assert abs(annotation.updated_at - datetime.now(UTC)).total_seconds() < 3600
    back = masks.masks_of(annotation.regions, CONFIG, expected_size=(HEIGHT, WIDTH))
    assert back.keys() == corrected.keys()
    assert all(np.array_equal(back[label], mask) for label, mask in corrected.items())


def test_every_change_of_an_annotation_is_found_by_the_next_pull(client, person, project_id, ranking):
    def changes(since):
        return {
            item.task.id: [(a.id, a.skipped, len(a.regions)) for a in item.annotations]
            for item in client.tasks(project_id, since)
        }

    regions = payloads.regions(CONFIG, {"Lesion": blob()}, {})
    task_id = ranking[2]
    assert changes(datetime.now(UTC)) == {}
    now = datetime.now(UTC)
    annotation_id = submit(person, task_id)
    assert changes(now) == {task_id: [(annotation_id, False, 0)]}
    now = datetime.now(UTC)
    person.patch(f"/api/annotations/{annotation_id}/", json={"result": regions}).raise_for_status()
    assert changes(now) == {task_id: [(annotation_id, False, 1)]}
    now = datetime.now(UTC)
    person.delete(f"/api/annotations/{annotation_id}/").raise_for_status()
    assert changes(now) == {task_id: []}
    now = datetime.now(UTC)
    skipped_id = submit(person, task_id, was_cancelled=True)
    assert changes(now) == {task_id: [(skipped_id, True, 0)]}


def test_a_deleted_task_is_missing_from_the_ids(client, person, project_id, ranking):
    person.delete(f"/api/tasks/{ranking[0]}/").raise_for_status()
    assert client.task_ids(project_id) == set(ranking[1:])
