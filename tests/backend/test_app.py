"""The HTTP routes: what each does for callers whom the door lets in; test_app_refusals holds the door."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from structlog.contextvars import get_contextvars

from backend import annotations, nudges, predictions
from backend import rounds as journeys
from backend.app import create_app
from backend.files import Files
from backend.store import Store, projects, rounds
from backend.tables import Annotation, Trigger
from tests.backend.conftest import World
from tests.backend.fakes import LABEL_CONFIG
from tests.backend.rows import prediction as a_prediction
from tests.backend.rows import project as a_project
from tests.backend.rows import task as a_task
from tests.backend.rows import version as a_version
from tests.backend.web import (
    BASIC,
    BEARER,
    HOOK,
    add_version,
    annotation_body,
    predict_body,
    serve,
    store_predictions,
)

PROJECT = 1
OPEN = {"/", "/health", "/ready"}
# What a door does is the same whatever database stands behind it.
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


@on_sqlite
def test_health_is_open_and_asks_neither_database_nor_model(world: World) -> None:
    world.ctx.store.close()
    client = TestClient(create_app(replace(world.ctx, store=None, serving=None)))  # type: ignore[arg-type]
    for path in ("/", "/health"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["status"]) == (200, "UP")


def test_ready_when_everything_it_needs_is_there(world: World) -> None:
    answer = serve(world).get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


@on_sqlite
def test_not_ready_says_which_part_is_not_and_no_path(world: World, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("where a folder should be")
    full = world.ctx.settings.model_copy(update={"min_free_disk_bytes": 2**62})
    broken = Files(tmp_path / "a file" / "files", max_image_pixels=1)
    for changed in ({"settings": full}, {"files": broken}):
        answer = TestClient(create_app(replace(world.ctx, **changed))).get("/ready")
        assert answer.status_code == 503
        assert answer.json().keys() == {"status", "data_folder"}
        assert str(tmp_path) not in answer.text


def test_a_database_that_is_behind_or_does_not_answer_is_not_ready(world: World, tmp_path: Path) -> None:
    world.ctx.store.migrate("0002")
    client = serve(world)
    behind = client.get("/ready")
    world.ctx.store.migrate("base")
    assert "0006" in behind.json()["database"]
    for answer in (behind, client.get("/ready"), _ready_with(world, "postgresql://a:secret@127.0.0.1:9/none")):
        assert answer.status_code == 503
        assert answer.json().keys() == {"status", "database"}
        assert "secret" not in answer.text


def _ready_with(world: World, url: str) -> Any:
    store = Store(url)
    try:
        return TestClient(create_app(replace(world.ctx, store=store))).get("/ready")
    finally:
        store.close()


@on_sqlite
def test_every_answer_names_its_request_and_a_strange_name_is_replaced(
    world: World,
) -> None:
    client = serve(world)
    assert client.get("/health", headers={"X-Request-ID": "from-a.proxy_7"}).headers["X-Request-ID"] == "from-a.proxy_7"
    names = [client.get("/versions", headers={"X-Request-ID": name}).headers["X-Request-ID"] for name in BAD_NAMES]
    assert not set(names) & set(BAD_NAMES)
    assert len(set(names)) == len(BAD_NAMES)
    assert client.get("/health").headers["X-Request-ID"]


BAD_NAMES = ["", "two words", "x" * 65, "a;drop", "<b>"]


@on_sqlite
def test_lines_of_a_request_say_which_request_project_and_task_they_are_about(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    world.label_studio.add_task(5)

    def receive(*_: Any) -> bool:
        seen.append(get_contextvars())
        return True

    def answer(*_: Any) -> bytes:
        seen.append(get_contextvars())
        return b"{}"

    monkeypatch.setattr(annotations, "receive", receive)
    monkeypatch.setattr(predictions, "answer", answer)
    client = serve(world)
    named = {"X-Request-ID": "r1"}
    client.post("/webhook", json=annotation_body(world, 9, 5), headers=HOOK | named)
    client.post("/predict", json=predict_body(world, 5), headers=BEARER | named)
    world.label_studio.add_task(6)
    client.post("/predict", json=predict_body(world, 5, 6), headers=BEARER | named)
    one = {"request": "r1", "project": PROJECT, "task": 5}
    assert seen == [one, one, {"request": "r1", "project": PROJECT}]
    assert get_contextvars() == {}


@on_sqlite
def test_a_lead_cancels_a_round(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(journeys, "cancel", lambda _ctx, round_id: asked.append(round_id), raising=False)
    client = serve(world)
    client.headers = BEARER
    started = client.post("/api/projects/1/rounds").json()["id"]
    answer = client.post(f"/api/rounds/{started}/cancel")
    assert (answer.status_code, answer.json()["id"], asked) == (200, started, [started])
    assert client.post("/api/rounds/none/cancel").status_code == 422


@on_sqlite
def test_a_lead_rolls_back_to_a_version(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve(world)
    client.headers = BEARER
    started = client.post("/api/projects/1/rounds").json()["id"]
    asked: list[tuple[int, int]] = []

    def roll_back(_ctx: Any, project_id: int, number: int) -> int:
        asked.append((project_id, number))
        return int(started)

    monkeypatch.setattr(journeys, "roll_back", roll_back, raising=False)
    answer = client.post("/api/projects/1/rollback", json={"version": 3})
    assert (answer.status_code, answer.json()["id"], asked) == (201, started, [(1, 3)])
    bad: list[Any] = [{}, [], {"version": "3"}, {"version": 0}, {"version": True}, {"version": 1.0}, {"version": 2**31}]
    for body in bad:
        refused = client.post("/api/projects/1/rollback", json=body)
        assert (refused.status_code, refused.json()["error"]) == (400, "BadPayload")
    assert len(asked) == 1


def test_a_webhook_is_stored_and_then_a_worker_is_nudged(world: World) -> None:
    world.label_studio.add_task(1)
    body = annotation_body(world, 9, 1)
    client = serve(world)
    for _ in range(2):
        answer = client.post("/webhook", json=body, headers=HOOK)
        assert (answer.status_code, answer.json()) == (201, {"status": "stored"})
    with world.ctx.store.read() as s:
        row = s.get(Annotation, 9)
    assert row is not None and row.task_id == 1
    assert world.sent[0] == ("open_if_due", PROJECT)


@on_sqlite
def test_a_burst_nudges_at_its_beginning_and_after_its_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nudges, "EVERY_SECONDS", 2.0)
    world.label_studio.add_task(1)
    client = serve(world)
    for _ in range(6):
        client.post("/webhook", json=annotation_body(world, 9, 1), headers=HOOK)
    before = len(world.sent)
    assert 1 <= before < 6, "a burst is not a message each"
    deadline = time.monotonic() + 30
    while len(world.sent) == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(world.sent) > before, "nobody looks after the last annotation, which may be the one that counts"
    assert set(world.sent) == {("open_if_due", PROJECT)}


def test_start_training_opens_a_round_and_then_says_that_one_runs(world: World) -> None:
    world.label_studio.add_task(1)
    world.pull()
    client = serve(world)
    body = {"action": "START_TRAINING", "project": {"id": PROJECT}}
    first, second = (client.post("/webhook", json=body, headers=HOOK) for _ in range(2))
    assert (first.status_code, first.json()) == (201, {"status": "a round was opened"})
    assert second.status_code == 201
    assert "is running" in second.json()["status"]
    with world.ctx.store.read() as s:
        (row,) = rounds.of_project(s, PROJECT)
    assert row.trigger is Trigger.request
    assert world.sent == [("run_round", row.id)]


def test_leads_read_and_start_rounds_over_http(world: World) -> None:
    world.label_studio.add_task(1)
    world.pull()
    client = serve(world)
    client.headers = BEARER
    started = client.post("/api/projects/1/rounds")
    assert started.status_code == 201
    assert client.post("/api/projects/1/rounds").status_code == 409
    listed = client.get("/api/projects/1/rounds").json()
    assert [row["id"] for row in listed] == [started.json()["id"]]
    assert client.get(f"/api/rounds/{listed[0]['id']}").json() == started.json()
    assert client.get("/api/projects/1/queue").json() == []
    for path in ("/api/projects/44/rounds", "/api/projects/44/queue", "/api/rounds/4444"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json()["detail"]


def test_setup_and_versions_name_what_is_published(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.ctx.serving, "load", lambda _version: pytest.fail("the weights were loaded"))
    client = serve(world)
    for published, expected in ((None, predictions.UNPUBLISHED), ("wardround-r3-v2", "wardround-r3-v2")):
        with world.ctx.store.begin() as s:
            projects.change(s, PROJECT, published_version=published)
        answer = client.post("/setup", json={"project": "1.1795394750", "access_token": "x"}, headers=BEARER)
        assert answer.json() == {"model_version": expected}
        assert client.get("/versions", auth=BASIC).json() == {"versions": [expected]}


def test_stored_predictions_are_answered_as_they_were_stored(world: World) -> None:
    for task_id in (1, 2, 3):
        world.label_studio.add_task(task_id)
    world.pull()
    store_predictions(world, add_version(world), [1, 2, 3])
    answer = serve(world).post("/predict", json=predict_body(world, 3, 1, 2), auth=BASIC)
    assert answer.headers["Content-Type"] == "application/json"
    world.label_studio.annotations.clear()
    expected = [world.label_studio.annotate(task_id, task_id).regions for task_id in (3, 1, 2)]
    assert [result["result"] for result in answer.json()["results"]] == expected


@on_sqlite
def test_several_projects_are_answered_each_by_its_own_version_and_name(world: World) -> None:
    tasks = {PROJECT: 1, PROJECT + 1: 2}
    world.label_studio.add_task(1)
    world.label_studio.add_task(2)
    with world.ctx.store.begin() as s:
        projects.save(s, a_project(id=PROJECT + 1, label_config=LABEL_CONFIG))
        for project_id, task_id in tasks.items():
            s.add(a_task(id=task_id, project_id=project_id, image_url=f"/data/{task_id}.png"))
            s.add(a_version(id=task_id, project_id=project_id, serving=True))
            projects.change(s, project_id, published_version=f"wardround-r{project_id}-v1")
    with world.ctx.store.begin() as s:
        for task_id in tasks.values():
            s.add(a_prediction(task_id=task_id, model_version_id=task_id, regions_json=f'[{{"id":"{task_id}"}}]'))
    client = serve(world)
    for project_id, task_id in tasks.items():
        name = f"wardround-r{project_id}-v1"
        body = predict_body(world, task_id, project_id=project_id)
        (result,) = client.post("/predict", json=body, auth=BASIC).json()["results"]
        assert (result["result"], result["model_version"]) == ([{"id": str(task_id)}], name)
        assert client.post("/setup", json={"project": f"{project_id}.1"}, auth=BASIC).json() == {"model_version": name}
        event = annotation_body(world, task_id, task_id)
        event["project"]["id"] = project_id
        assert client.post("/webhook", json=event, headers=HOOK).status_code == 201
    with world.ctx.store.read() as s:
        rows = {row.task_id: row.project_id for row in s.scalars(select(Annotation))}
    assert rows == {task_id: project_id for project_id, task_id in tasks.items()}
