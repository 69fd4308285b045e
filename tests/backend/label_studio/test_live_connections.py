"""Tokens, images, webhooks and model servers against a real Label Studio."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from backend.label_studio import masks, payloads
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.errors import (
    ImageMissing,
    LabelStudioRefused,
    LabelStudioUnauthorised,
    LabelStudioUnreachable,
)
from tests.backend.label_studio.live import CONFIG, blob, png, submit

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
