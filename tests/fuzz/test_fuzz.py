"""Whatever the API is sent, it refuses or answers in words and goes on: never a 5xx, never something that is not JSON.

Schemathesis makes the requests out of our OpenAPI description, sound ones and broken ones. `make fuzz` sends far more
of them than the suite does: WARDROUND_FUZZ_EXAMPLES is how many for each operation, sound and broken.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core import NotSet

from backend.app import create_app
from model import ModelConfig
from tests.backend.conftest import World, store, world  # noqa: F401 - fixtures
from tests.backend.fakes import LABEL_CONFIG
from tests.backend.web import BEARER, add_version, store_predictions

EXAMPLES = int(os.environ.get("WARDROUND_FUZZ_EXAMPLES", "25"))
N_TASKS = 4
KNOWN_PROJECT = {"key": "1.1795394750", "id": 1}
WORDS = {200, 201, 400, 401, 404, 405, 406, 409, 413, 415, 422}


@pytest.fixture
def client(world: World, tmp_path: Path) -> Iterator[TestClient]:  # noqa: F811
    """The API over a connected project with tasks, predictions and annotations in it."""
    for task_id in range(1, N_TASKS + 1):
        world.label_studio.add_task(task_id)
        world.label_studio.annotate(task_id, task_id)
    world.pull()
    world.ctx.serving.create(ModelConfig(backbone="tiny"), seed=0).save(tmp_path / "version", {})
    version = add_version(world, sha256=world.ctx.files.put_checkpoint(tmp_path / "version"))
    store_predictions(world, version, list(range(1, N_TASKS)))
    with TestClient(create_app(world.ctx), raise_server_exceptions=False, headers=BEARER) as client:
        yield client


# A busy machine may need seconds for one example of each operation; what must not happen is that it hangs.
@pytest.mark.timeout(max(300, 3 * EXAMPLES))
@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_no_request_is_answered_with_a_server_error(client: TestClient, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_dict(client.app.openapi())  # type: ignore[attr-defined]
    described: list[Any] = list(schema.get_all_operations())
    operations = [found.ok() for found in described]
    assert len(operations) >= 14
    sent = {operation.label: _fuzz(client, operation, mode) for operation in operations}
    print(f"{sum(sent.values())} requests of {len(sent)} operations, {mode}")


def _fuzz(client: TestClient, operation: Any, mode: GenerationMode) -> int:
    """Send many requests of one operation; returns how many."""
    sent = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        nonlocal sent
        sent += 1
        _send(client, case)

    try:
        send()
    except Exception as error:
        if "cannot be negated" in str(error) or "Unsatisfiable" in type(error).__name__:
            return 0
        raise
    return sent


def _send(client: TestClient, case: Any) -> None:
    body = None if isinstance(case.body, NotSet) else _of_a_known_project(case.body)
    given_body = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = client.request(case.method, case.formatted_path, params=case.query, **given_body)
    said = f"{case.method} {case.formatted_path} {body!r:.500} → {answer.status_code} {answer.text:.300}"
    assert answer.status_code in WORDS, said
    if answer.status_code >= 400 and answer.status_code != 405:
        assert set(answer.json()) == {"error", "detail"}, said


def _of_a_known_project(body: Any) -> Any:
    """The same body about the project that is there: one of an unknown project is refused before it is looked at."""
    if not isinstance(body, dict):
        return body
    project = body.get("project")
    if isinstance(project, str):
        return body | {"project": KNOWN_PROJECT["key"], "label_config": LABEL_CONFIG}
    if isinstance(project, dict):
        return body | {"project": project | {"id": KNOWN_PROJECT["id"]}}
    return body
