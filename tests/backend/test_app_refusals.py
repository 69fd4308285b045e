"""The HTTP door: only callers with the right secret get in, and every refusal is short, plain and tells no secret."""

import base64
import logging
from dataclasses import replace
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import SecretStr

from backend import annotations, app, predictions, report
from backend.app import create_app
from backend.tables import Annotation
from backend.wiring import SECRET_HEADER
from tests.backend.conftest import World
from tests.backend.web import (
    API_TOKEN,
    BASIC,
    BEARER,
    HOOK,
    WEBHOOK_SECRET,
    annotation_body,
    predict_body,
    serve,
)

PROJECT = 1
OPEN = {"/", "/health", "/ready"}
# What a door does is the same whatever database stands behind it.
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


WRONG: list[dict[str, str]] = [
    {},
    basic("wardround", ""),
    basic("wardround", "wrong"),
    basic(API_TOKEN, "wardround"),
    basic("wardround", WEBHOOK_SECRET),
    {"Authorization": "Basic not-base64!"},
    {"Authorization": "Basic /w=="},
    {"Authorization": f"Bearer {WEBHOOK_SECRET}"},
    {"Authorization": "Bearer "},
    {"Authorization": f"Bearer {API_TOKEN[:-1]}"},
    {"Authorization": f"Token {API_TOKEN}"},
    {"Authorization": API_TOKEN},
    {SECRET_HEADER: API_TOKEN},
    {SECRET_HEADER: ""},
    {SECRET_HEADER: WEBHOOK_SECRET + "x"},
]


def guarded(client: TestClient) -> list[tuple[str, str]]:
    """Method and path of every route but the open ones, whatever will be added."""
    routes = [route for route in client.app.routes if isinstance(route, APIRoute)]  # type: ignore[attr-defined]
    return [
        (method, route.path.replace("{project_id}", "1").replace("{round_id}", "1"))
        for route in routes
        for method in sorted(route.methods or ())
        if route.path not in OPEN
    ]


@on_sqlite
def test_every_other_route_refuses_missing_and_wrong_secrets_alike(world: World) -> None:
    client = serve(world)
    routes = guarded(client)
    assert {path for _, path in routes} >= {"/setup", "/predict", "/versions", "/webhook"}
    for method, path in routes:
        answers = [client.request(method, path, headers=headers, content=b"{broken") for headers in WRONG]
        assert {answer.status_code for answer in answers} == {401}, path
        assert len({answer.content for answer in answers}) == 1, f"{path} says which part of the secret was wrong"
        assert all(answer.headers["WWW-Authenticate"] == "Basic" for answer in answers)
        assert set(answers[0].json()) == {"error", "detail"}


@on_sqlite
def test_the_webhooks_secret_opens_nothing_but_the_webhook(world: World) -> None:
    client = serve(world)
    for method, path in guarded(client):
        status = client.request(method, path, headers=HOOK, json={"action": "NEWS", "project": {"id": 1}}).status_code
        assert (status == 401) == (path != "/webhook"), path


@on_sqlite
@pytest.mark.parametrize("headers", [BEARER, basic(*BASIC), {"Authorization": f"bearer {API_TOKEN}"}])
def test_the_token_opens_every_route_as_password_and_as_bearer(world: World, headers: dict[str, str]) -> None:
    client = serve(world)
    for method, path in guarded(client):
        assert client.request(method, path, headers=headers, content=b"{broken").status_code != 401, path


@on_sqlite
def test_a_secret_that_is_not_set_lets_nobody_in(world: World) -> None:
    bare = world.ctx.settings.model_copy(update={"api_token": SecretStr(""), "webhook_secret": SecretStr("")})
    client = TestClient(create_app(replace(world.ctx, settings=bare)))
    for method, path in guarded(client):
        for headers in ({}, {SECRET_HEADER: ""}, basic("wardround", ""), {"Authorization": "Bearer "}):
            assert client.request(method, path, headers=headers).status_code == 401


@on_sqlite
def test_the_body_is_not_even_read_before_the_secret_was_shown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_MAX_BODY_BYTES", 10)
    client = serve(world)
    assert client.post("/predict", content=b"x" * 100).status_code == 401
    assert client.post("/predict", content=b"x" * 100, headers=BEARER).status_code == 400


def _pieces() -> Any:
    for _ in range(20):
        yield b" " * 1000


@on_sqlite
def test_a_body_larger_than_allowed_is_refused_whatever_it_announces(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_MAX_BODY_BYTES", 15_000)
    client = serve(world)
    for content in (b" " * 20_000, _pieces()):
        answer = client.post("/webhook", content=content, headers=HOOK)
        assert answer.status_code == 400
        assert "larger than 15000 bytes" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/predict", "/setup", "/webhook"])
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"null", b"[]", b'"text"', b"3", b"{}", b"[" * 100_000, b'{"project": 1}', b"NaN"],
    ids=lambda body: body[:20].decode(errors="replace") or "nothing",
)
@on_sqlite
def test_a_body_that_makes_no_sense_is_refused_in_words(world: World, path: str, body: bytes) -> None:
    answer = serve(world).post(path, content=body, headers=BEARER)
    assert answer.status_code == 400
    assert answer.json()["error"] == "BadPayload"
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 0), ("id", -1), ("id", True), ("id", "9"), ("id", 9.5), ("id", None), ("id", 2**31), ("id", 2**63),
        ("id", 10**30), ("task", 2**40), ("task", None), ("completed_by", 2**40), ("parent_prediction", 2**80),
        ("updated_at", "yesterday"), ("updated_at", "2026-03-01T08:00:00"), ("updated_at", 5),
        ("lead_time", -1), ("lead_time", "long"), ("result", {"value": []}), ("result", ["text"]), ("result", "text"),
    ],
)  # fmt: skip
def test_an_annotation_with_a_field_of_the_wrong_type_is_refused_by_name(world: World, field: str, value: Any) -> None:
    world.label_studio.add_task(1)
    body = annotation_body(world, 9, 1)
    body["annotation"][field] = value
    answer = serve(world).post("/webhook", json=body, headers=HOOK)
    if field == "result" and value == {"value": []}:
        # One region instead of a list of them is read as such; a region of nothing holds no mask.
        assert answer.status_code == 201
        return
    assert answer.status_code == 400, answer.text
    assert f"annotation.{field}" in answer.json()["detail"]
    with world.ctx.store.read() as s:
        assert s.get(Annotation, 9) is None


@pytest.mark.parametrize("task", [{"id": "1"}, {"id": 2**31}, {"id": 2**70}, {"id": 1, "data": []}, "text", None])
def test_a_task_of_the_wrong_type_is_refused(world: World, task: Any) -> None:
    body: dict[str, Any] = predict_body(world)
    body["tasks"] = [task if not isinstance(task, dict) else {"data": {}} | task]
    assert serve(world).post("/predict", json=body, headers=BEARER).status_code == 400


@pytest.mark.parametrize("key", ["1 or 1=1", "-1", "0", "", ".5", "9" * 30, "٣"])
@on_sqlite
def test_a_project_key_that_is_none_is_refused(world: World, key: str) -> None:
    body = predict_body(world) | {"project": key}
    for path in ("/predict", "/setup"):
        assert serve(world).post(path, json=body, headers=BEARER).status_code == 400


@pytest.mark.parametrize("number", ["0", "-1", "one", "1.5", str(2**31), str(2**63), "9" * 40])
def test_an_id_in_the_path_that_is_none_is_refused(world: World, number: str) -> None:
    client = serve(world)
    for path in (f"/api/projects/{number}/rounds", f"/api/projects/{number}/queue", f"/api/rounds/{number}"):
        answer = client.get(path, headers=BEARER)
        assert answer.status_code in (404, 422), answer.text
        assert set(answer.json()) == {"error", "detail"}


@on_sqlite
@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/nothing", "/api/projects", "/predict"])
def test_an_unknown_route_is_an_ordinary_error(world: World, path: str) -> None:
    answer = serve(world).get(path, headers=BEARER)
    assert answer.status_code in (404, 405)
    assert set(answer.json()) == {"error", "detail"}


@on_sqlite
def test_an_unexpected_error_shows_no_trace_and_no_secret(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*_: Any) -> None:
        raise ZeroDivisionError(f"in a place that knew {WEBHOOK_SECRET}")

    world.label_studio.add_task(1)
    monkeypatch.setattr(predictions, "answer", explode)
    monkeypatch.setattr(annotations, "receive", explode)
    monkeypatch.setattr(report, "rounds_of", explode)
    monkeypatch.setattr(report, "queue_of", explode)
    monkeypatch.setattr(report, "round_in_full", explode)
    client = serve(world)
    answers = [
        client.post("/predict", json=predict_body(world, 1), headers=BEARER),
        client.post("/webhook", json=annotation_body(world, 1, 1), headers=HOOK),
        client.get("/api/projects/1/rounds", headers=BEARER),
        client.get("/api/projects/1/queue", headers=BEARER),
        client.get("/api/rounds/1", headers=BEARER),
    ]
    for answer in answers:
        assert answer.status_code == 500
        assert set(answer.json()) == {"error", "detail"}
        assert not any(word in answer.text for word in ("Traceback", "File ", "ZeroDivision", WEBHOOK_SECRET))


@on_sqlite
def test_no_secret_reaches_an_answer_or_a_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world.label_studio.add_task(1)
    world.pull()
    client = serve(world)
    answers = []
    for headers in (*WRONG, HOOK, BEARER, basic(*BASIC)):
        for method, path in guarded(client):
            for body in (b"{broken", b'{"project": "1.5", "access_token": "the-legacy-token"}'):
                answers.append(client.request(method, path, headers=headers, content=body).text)
        answers.append(client.post("/webhook", json=annotation_body(world, 1, 1), headers=headers).text)
    said = "\n".join([*answers, caplog.text, repr(world.ctx.settings)])
    for secret in (API_TOKEN, WEBHOOK_SECRET, "a-token", "the-legacy-token", basic(*BASIC)["Authorization"][6:]):
        assert secret not in said
