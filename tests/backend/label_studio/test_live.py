"""The room against a real Label Studio: what it stores, serves, tells and drops."""

import io
import json
import re
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from backend.label_studio import masks, payloads
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.errors import (
    ImageMissing,
    LabelStudioRefused,
    LabelStudioUnauthorised,
    LabelStudioUnreachable,
    PredictionsDropped,
)

CONFIG_XML = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Lesion"/><Label value="Organ"/></BrushLabels></View>'
)
CONFIG = payloads.parse_label_config(CONFIG_XML)
HEIGHT, WIDTH = 48, 64
SAMPLING = "Uncertainty sampling"
RANKING = (3, 0, 5, 1, 4, 2)  # positions among the tasks: an order that neither ids nor time give


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()


def blob(top=5):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top : top + 20, 10:40] = True
    mask[top + 5 : top + 9, 20:22] = False
    return mask


@pytest.fixture(scope="module")
def person(label_studio):
    """An annotator at the API, as the editor would be."""
    headers = {"Authorization": f"Token {label_studio.token}"}
    with httpx.Client(base_url=label_studio.url, headers=headers, timeout=60) as browser:
        yield browser


@pytest.fixture(scope="module")
def client(label_studio):
    with LabelStudioClient(label_studio.url, label_studio.token) as client:
        yield client


@pytest.fixture
def project_id(person):
    """A project of six uploaded images."""
    answer = person.post("/api/projects/", json={"title": "room", "label_config": CONFIG_XML})
    project_id = answer.raise_for_status().json()["id"]
    files = [(f"file{n}", (f"image{n}.png", png(n), "image/png")) for n in range(len(RANKING))]
    person.post(f"/api/projects/{project_id}/import", files=files).raise_for_status()
    return project_id


@pytest.fixture
def ranking(client, project_id):
    task_ids = sorted(client.task_ids(project_id))
    return [task_ids[position] for position in RANKING]


def publish(client, project_id, ranking, version="wardround-r1-v1", **fields):
    """What a round does: push every prediction, then make their version the project's."""
    items = [
        payloads.prediction(
            task_id,
            version,
            payloads.regions(CONFIG, {"Lesion": blob(rank)}, {"Lesion": 0.8}),
            payloads.ls_score(rank, len(ranking)),
        )
        for rank, task_id in enumerate(ranking)
    ]
    assert client.import_predictions(project_id, items) == len(ranking)
    client.update_project(project_id, model_version=version, sampling=SAMPLING, **fields)


def serve_next(person, project_id):
    return person.get(f"/api/projects/{project_id}/next").raise_for_status().json()


def submit(person, task_id, regions=(), **fields):
    body = {"result": list(regions), "lead_time": 2.5} | fields
    return person.post(f"/api/tasks/{task_id}/annotations/", json=body).raise_for_status().json()["id"]


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


@pytest.fixture
def colleague(label_studio, person):
    """A second annotator, signed up by invitation."""
    invitation = person.get("/api/invite").raise_for_status().json()["invite_url"]
    with httpx.Client(base_url=label_studio.url, follow_redirects=True, timeout=60) as browser:
        page = browser.get(invitation).text
        form = {
            "csrfmiddlewaretoken": re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[0],
            "email": f"colleague-{datetime.now(UTC).timestamp()}@wardround.local",
            "password": "correct horse battery",
        }
        browser.post(invitation, data=form, headers={"Referer": label_studio.url}).raise_for_status()
        browser.headers["X-CSRFToken"] = browser.cookies["csrftoken"]
        yield browser


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


# ------------------------------------------------------------------------------------------------------ tokens, images


@pytest.mark.parametrize("kind", ["legacy", "personal"])
def test_an_upload_is_fetched_with_either_token(label_studio, project_id, kind):
    token = label_studio.token if kind == "legacy" else label_studio.pat()
    with LabelStudioClient(label_studio.url, token) as client:
        first = min(client.tasks(project_id), key=lambda item: item.task.id).task
        assert first.image_url.startswith("/data/upload/")
        assert client.fetch_image(first.image_url, 10**6) == png(0)
        assert client.fetch_image(label_studio.url + first.image_url, 10**6) == png(0)
        with pytest.raises(ImageMissing):
            client.fetch_image("/data/upload/0/missing.png", 10**6)


@pytest.mark.parametrize("kind", ["legacy", "personal"])
def test_a_token_that_is_no_longer_good_is_said_so(label_studio, project_id, kind):
    token = "f" * 40 if kind == "legacy" else label_studio.pat()[:-4] + "AAAA"
    with LabelStudioClient(label_studio.url, token) as client:
        with pytest.raises(LabelStudioUnauthorised, match="token"):
            client.project(project_id)
        with pytest.raises(LabelStudioUnauthorised, match="token"):
            client.fetch_image("/data/upload/1/a.png", 10**6)


def test_a_label_studio_that_is_not_there_is_said_so(label_studio):
    with LabelStudioClient("http://127.0.0.1:1", label_studio.token) as client, pytest.raises(LabelStudioUnreachable):
        client.project(1)


# ---------------------------------------------------------------------------------------------------------- connections


class _Told(ThreadingHTTPServer):
    told: list[tuple[str, dict[str, str], dict[str, Any]]]


class _Backend(BaseHTTPRequestHandler):
    """The least a model server must answer; keeps what it is told."""

    server: _Told

    def do_GET(self):
        self._answer({"status": "UP"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.told.append((self.path, dict(self.headers), body))
        self._answer({"model_version": "wardround"})

    def _answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def backend():
    server = _Told(("127.0.0.1", 0), _Backend)
    server.told = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def address(backend):
    return f"http://127.0.0.1:{backend.server_port}"


def test_our_webhook_brings_its_secret_and_the_mask(client, person, backend, project_id, ranking):
    url, actions = f"{address(backend)}/webhook", ["ANNOTATION_CREATED", "ANNOTATIONS_DELETED"]
    created = client.create_webhook(project_id, url, {"X-Wardround-Secret": "s3cret"}, actions)
    (webhook,) = client.webhooks(project_id)
    assert (webhook["id"], webhook["url"], sorted(webhook["actions"])) == (created["id"], url, sorted(actions))
    annotation_id = submit(person, ranking[0], payloads.regions(CONFIG, {"Lesion": blob()}, {}))
    person.delete(f"/api/annotations/{annotation_id}/").raise_for_status()
    (_, headers, annotated), (_, _, deleted) = backend.told
    assert headers["X-Wardround-Secret"] == "s3cret"
    event = payloads.parse_webhook(annotated)
    assert (event.project_id, [a.id for a in event.annotations]) == (project_id, [annotation_id])
    assert [task.id for task in event.tasks] == [ranking[0]]
    assert np.array_equal(masks.masks_of(event.annotations[0].regions, CONFIG)["Lesion"], blob())
    assert payloads.parse_webhook(deleted).deleted_annotation_ids == [annotation_id]
    client.delete_webhook(created["id"])
    client.delete_webhook(created["id"])
    assert client.webhooks(project_id) == []


def test_a_model_server_is_connected_and_leaves_its_webhook_behind(client, backend, project_id):
    created = client.create_ml_backend(project_id, address(backend), "wardround", "wardround", "s3cret")
    assert [item["id"] for item in client.ml_backends(project_id)] == [created["id"]]
    setups = [(headers, body) for path, headers, body in backend.told if path == "/setup"]
    assert {payloads.parse_setup(body) for _, body in setups} == {project_id}
    assert all(headers["Authorization"].startswith("Basic ") for headers, _ in setups)
    assert client.project(project_id)["model_version"] == "wardround"
    client.delete_ml_backend(created["id"])
    client.delete_ml_backend(created["id"])
    assert client.ml_backends(project_id) == []
    (left,) = client.webhooks(project_id)
    client.delete_webhook(left["id"])


def test_a_model_server_that_is_down_is_refused(client, project_id):
    with pytest.raises(LabelStudioRefused) as caught:
        client.create_ml_backend(project_id, "http://127.0.0.1:1", "wardround", "wardround", "s3cret")
    assert "s3cret" not in str(caught.value)
    assert client.ml_backends(project_id) == []
