"""The adapter for label-studio-ml under 1.0.9: a real Label Studio asks it, and Wardround's API answers."""

import os
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn

from backend.app import create_app
from backend.label_studio import masks
from backend.tables import Annotation
from demo.processes import LOOPBACK, Child, free_port
from tests.backend.label_studio.live import CONFIG, HEIGHT, WIDTH, blob, submit
from tests.backend.label_studio.product import API_TOKEN, WEBHOOK_SECRET, context_of, remember_round

ADAPTER = Path(__file__).resolve().parents[3] / "adapter" / "wardround_model.py"
VERSION = "wardround-r1-v1"
# Nothing here is about speed: a machine may be busy with other things.
DEADLINE_SECONDS = 60.0
# Label Studio tells of an annotation once and waits a second for the answer: on a busy machine one may be lost.
EVENT_SECONDS = 10.0


@pytest.fixture
def ctx(client, project_id, ranking, tmp_path):
    ctx = context_of(client, tmp_path, project_id)
    remember_round(ctx, project_id, ranking, VERSION)
    yield ctx
    ctx.store.close()


@pytest.fixture
def api(ctx):
    """The URL of Wardround's API."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(ctx), host=LOOPBACK, port=port, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert seen(lambda: server.started)
    yield f"http://{LOOPBACK}:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def adapter(api, label_studio_ml, tmp_path):
    """The URL of the adapter, the folder in which label-studio-ml keeps its notes, and its log."""
    port, notes, log = free_port(), tmp_path / "notes", tmp_path / "adapter.log"
    environment = {
        "PATH": os.defpath,
        "MODEL_DIR": str(notes),
        "WARDROUND_PUBLIC_URL": api,
        "WARDROUND_API_TOKEN": API_TOKEN,
        "WARDROUND_WEBHOOK_SECRET": WEBHOOK_SECRET,
    }
    command = (label_studio_ml, ADAPTER, "--port", str(port))
    url = f"http://{LOOPBACK}:{port}"
    with Child("the adapter", command, log=log, env=environment, cwd=tmp_path) as child:
        child.wait_until(lambda: answers(url), timeout_seconds=DEADLINE_SECONDS)
        yield url, notes, log


def answers(url):
    try:
        return httpx.get(f"{url}/health", timeout=2.0).is_success
    except httpx.TransportError:
        return False


def seen(look, seconds=DEADLINE_SECONDS):
    until = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < until:
        time.sleep(0.1)
    return found


def test_label_studio_gets_our_predictions_and_we_get_its_events(ctx, client, person, project_id, ranking, adapter):
    url, notes, log = adapter
    body = {"project": project_id, "url": url, "title": "adapter"}
    backend = person.post("/api/ml/", json=body).raise_for_status().json()
    assert backend["state"] == "CO"

    wanted = {"selectedItems": {"all": True, "excluded": []}, "project": project_id}
    query = {"id": "retrieve_tasks_predictions", "project": project_id}
    person.post("/api/dm/actions", params=query, json=wanted).raise_for_status()
    for rank, task_id in enumerate(ranking):
        (prediction,) = person.get(f"/api/tasks/{task_id}").raise_for_status().json()["predictions"]
        assert prediction["model_version"] == VERSION
        painted = masks.masks_of(prediction["result"], CONFIG, (HEIGHT, WIDTH))
        assert np.array_equal(painted["Lesion"], blob(rank))

    def row(annotation_id):
        with ctx.store.read() as s:
            return s.get(Annotation, annotation_id)

    def told(task_id):
        """The annotation of a task, if its event came."""
        annotation_id = submit(person, task_id, prediction["result"])
        return annotation_id if seen(lambda: row(annotation_id), EVENT_SECONDS) else None

    known = next(filter(None, map(told, ranking)), None)
    assert known, "no event of an annotation came"
    assert (row(known).project_id, row(known).deleted_at) == (project_id, None)
    person.delete(f"/api/annotations/{known}/").raise_for_status()
    assert seen(lambda: row(known).deleted_at), "the deletion did not come"
    assert seen(lambda: not list(notes.iterdir())), "events stay on disk for ever"
    assert "result" not in log.read_text() and "Traceback" not in log.read_text()
