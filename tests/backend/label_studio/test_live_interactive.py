"""A smart tool through a real Label Studio: what the editor asks, what reaches us, what the editor gets."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import numpy as np
import pytest
import uvicorn
from pydantic import SecretStr

from backend.app import create_app
from backend.context import Context
from backend.files import Files
from backend.label_studio import masks, payloads
from backend.serving import Served, Serving
from backend.settings import Settings
from backend.store import Store, predictions, projects
from demo.processes import LOOPBACK, free_port
from model import ModelConfig, Segmenter
from tests.backend import fakes
from tests.backend.rows import project as a_project
from tests.backend.test_interactive import CONFIG, PROMPT, box, centre, point, stroke

TOKEN = "the-api-token"


@pytest.fixture
def task(client, person):
    """A project with the tools and one image with a bright disc; its only task."""
    made = person.post("/api/projects/", json={"title": "smart", "label_config": CONFIG}).raise_for_status().json()
    upload = {"file": ("disc.png", fakes.png(1), "image/png")}
    person.post(f"/api/projects/{made['id']}/import", files=upload).raise_for_status()
    ((found),) = client.tasks(made["id"])
    return found.task


@pytest.fixture
def backend(task, client, person, tmp_path):
    """Our API over that project, with `tiny` serving it, connected as an interactive model server: its id there."""
    port = free_port()
    settings = Settings(data_dir=tmp_path, api_token=SecretStr(TOKEN), webhook_secret=SecretStr("s3cret"), device="cpu")
    store = Store(f"sqlite:///{tmp_path / 'test.db'}")
    store.migrate()
    files = Files(tmp_path / "files", max_image_pixels=settings.max_image_pixels)
    serving = Serving(store, files, "cpu")
    ctx = Context(settings, store, files, client, serving, lambda *_, **__: None, lambda: datetime.now(UTC))
    now = ctx.now()
    row = {"id": task.id, "project_id": task.project_id, "image_url": task.image_url, "group_key": "g"}
    with store.begin() as s:
        projects.save(s, a_project(id=task.project_id, label_config=CONFIG, prompts={"Lesion": PROMPT}))
        projects.add_tasks(s, [row | {"held_out": False, "created_at": now}])
        version = predictions.add_version(
            s, task.project_id, parent_id=None, checkpoint_sha256="0" * 64, card={}, now=now
        )
        predictions.serve(s, task.project_id, version.id)
    served = Served(version, Segmenter.create(ModelConfig(), seed=0))
    serving.load = lambda version: served  # type: ignore[method-assign]
    server = uvicorn.Server(uvicorn.Config(create_app(ctx), host=LOOPBACK, port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    body = {
        "project": task.project_id,
        "url": f"http://{LOOPBACK}:{port}",
        "title": "wardround",
        "is_interactive": True,
    }
    body |= {"auth_method": "BASIC_AUTH", "basic_auth_user": "wardround", "basic_auth_pass": TOKEN}
    yield person.post("/api/ml/", json=body).raise_for_status().json()["id"]
    server.should_exit = True
    thread.join()
    store.close()


def test_a_smart_tool_gets_suggestions_through_label_studio(person, task, backend):
    disc = fakes.true_mask(1)

    def ask(*done):
        body = {"task": task.id, "context": {"result": list(done)}}
        return person.post(f"/api/ml/{backend}/interactive-annotating", json=body).raise_for_status().json()

    def mask(answer):
        found = masks.masks_of(answer["data"]["result"], payloads.parse_label_config(CONFIG), disc.shape)
        return found.get("Lesion", np.zeros_like(disc))

    def overlap(found):
        return 2 * (found & disc).sum() / (found.sum() + disc.sum())

    assert overlap(mask(ask(point(centre(disc))))) > 0.8
    rows, columns = np.nonzero(disc)
    assert overlap(mask(ask(box(rows.min() - 3, columns.min() - 3, rows.max() + 4, columns.max() + 4)))) > 0.7
    across = np.zeros_like(disc)
    across[centre(disc)[0], columns.min() : columns.max()] = True
    assert overlap(mask(ask(stroke(across)))) > 0.8
    # The person's own unfinished work is what a point rules out of.
    mine = disc.copy()
    mine[:4, :4] = ~disc[:4, :4]
    drawn = payloads.regions(payloads.parse_label_config(CONFIG), {"Lesion": mine}, {})
    draft = {"result": drawn, "lead_time": 1, "was_postponed": False}
    person.post(f"/api/tasks/{task.id}/drafts?project={task.project_id}", json=draft).raise_for_status()
    np.testing.assert_array_equal(mask(ask(point(centre(disc), is_positive=False))), mine & ~disc)
    # Label Studio passes on that something was refused; the words for it stay in our log.
    (problem,) = ask(point((3, 3), ["Ruler"]))["errors"]
    assert "422" in problem
    # What is accepted is submitted, and Label Studio keeps it as it was suggested.
    suggestion = ask(point(centre(disc)))["data"]["result"]
    answer = person.post(f"/api/tasks/{task.id}/annotations/", json={"result": suggestion, "lead_time": 2.0})
    assert answer.raise_for_status().json()["result"] == suggestion
