"""The API over a world, and the requests that a real Label Studio sent it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.label_studio.payloads import parse_label_config, regions
from backend.store import predictions
from backend.tables import ModelVersion
from backend.wiring import SECRET_HEADER
from tests.backend.conftest import World
from tests.backend.fakes import true_mask

API_TOKEN = "the-api-token"
WEBHOOK_SECRET = "the-webhook-secret"
BASIC = ("wardround", API_TOKEN)
BEARER = {"Authorization": f"Bearer {API_TOKEN}"}
HOOK = {SECRET_HEADER: WEBHOOK_SECRET}

RECORDINGS = Path(__file__).resolve().parents[3] / "shared" / "label-studio-requests"


def serve(world: World) -> TestClient:
    """The API without a secret; errors nobody expected are answered as they would be over a wire."""
    return TestClient(create_app(world.ctx), raise_server_exceptions=False)


def recordings(path: str = "") -> list[Any]:
    """Parameters: each request recorded from Label Studio 1.23.2, in the order they came, or a skip that says so."""
    found = [(file.stem, json.loads(file.read_text())) for file in sorted(RECORDINGS.glob("*.json"))]
    found = sorted((one for one in found if path in ("", one[1]["path"])), key=lambda one: one[1]["t"])
    if not found:
        reason = "recorded requests: the folder shared/label-studio-requests is not beside the repository"
        return [pytest.param({}, id="none", marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(request, id=name) for name, request in found]


def add_version(world: World, number: int = 1, *, serving: bool = True, sha256: str = "0" * 64) -> ModelVersion:
    """A model version without weights: whoever loads it fails."""
    with world.ctx.store.begin() as s:
        row = predictions.add_version(
            s, world.label_studio.project_id, parent_id=None, checkpoint_sha256=sha256, card={}, now=world.ctx.now()
        )
        if serving:
            predictions.serve(s, row.project_id, row.id)
    assert row.number == number
    return row


def store_predictions(world: World, version: ModelVersion, task_ids: list[int], **labels: np.ndarray) -> None:
    """Predictions as a round leaves them, of the true mask unless masks by label are given."""
    config = parse_label_config(world.project.label_config)
    for task_id in task_ids:
        masks = labels or {config.labels[0]: true_mask(task_id)}
        row = {
            "task_id": task_id,
            "model_version_id": version.id,
            "regions_json": json.dumps(regions(config, masks, {})),
            "score": 0.5,
            "embedding": np.zeros(4, dtype="<f4").tobytes(),
            "created_at": world.ctx.now(),
        }
        with world.ctx.store.begin() as s:
            predictions.add(s, [row])


def predict_body(world: World, *task_ids: int, project_id: int = 1) -> dict[str, Any]:
    """What Label Studio sends to /predict for some tasks of the world."""
    rows = [world.label_studio.task_rows[task_id] for task_id in task_ids]
    return {
        "project": f"{project_id}.1795394750",
        "label_config": world.label_studio.label_config,
        "tasks": [{"id": row.id, "data": row.data} for row in rows],
        "params": {"login": None, "password": None, "context": None},
    }


def annotation_body(world: World, annotation_id: int, task_id: int, **changed: Any) -> dict[str, Any]:
    """What Label Studio sends to /webhook when somebody submits the true mask."""
    found = world.label_studio.annotate(annotation_id, task_id, **changed)
    return {
        "action": "ANNOTATION_CREATED",
        "annotation": {
            "id": found.id,
            "task": found.task_id,
            "completed_by": found.completed_by,
            "lead_time": found.lead_time_seconds,
            "created_at": found.created_at.isoformat(),
            "updated_at": found.updated_at.isoformat(),
            "was_cancelled": found.skipped,
            "parent_prediction": found.parent_prediction,
            "result": found.regions,
        },
        "task": {"id": task_id, "data": world.label_studio.task_rows[task_id].data},
        "project": {"id": found.project_id, "label_config": world.label_studio.label_config},
    }
