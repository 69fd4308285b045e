"""One row of each table, for tests that talk to the database itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from backend.store import Session
from backend.tables import (
    Annotation,
    Arm,
    Effort,
    Mask,
    ModelVersion,
    Prediction,
    Project,
    Publication,
    Query,
    Role,
    Round,
    RoundItem,
    RoundStatus,
    Shard,
    Suspicion,
    Task,
    Trigger,
    Verdict,
    Worker,
)

NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
SHA256 = "0" * 64


def project(**changed: Any) -> Project:
    given: dict[str, Any] = {
        "id": 1, "title": "lesions", "label_config": "<View/>", "prompts": {"Lesion": "a lesion"},
        "group_field": "group", "prompt_field": "prompt", "connected_at": NOW,
    }  # fmt: skip
    return Project(**(given | changed))


def task(**changed: Any) -> Task:
    given: dict[str, Any] = {
        "id": 1, "project_id": 1, "image_url": "/data/1.png", "group_key": "a", "held_out": False, "created_at": NOW,
    }  # fmt: skip
    return Task(**(given | changed))


def annotation(**changed: Any) -> Annotation:
    given: dict[str, Any] = {"id": 1, "project_id": 1, "task_id": 1, "skipped": False, "received_at": NOW}
    return Annotation(**(given | changed))


def version(**changed: Any) -> ModelVersion:
    given: dict[str, Any] = {
        "project_id": 1, "number": 1, "checkpoint_sha256": SHA256, "card": {}, "serving": False, "created_at": NOW,
    }  # fmt: skip
    return ModelVersion(**(given | changed))


def a_round(**changed: Any) -> Round:
    given: dict[str, Any] = {
        "project_id": 1, "number": 0, "status": RoundStatus.done, "trigger": Trigger.first, "strategy": "random",
        "seed": 0, "attempts": 0, "opened_at": NOW,
    }  # fmt: skip
    return Round(**(given | changed))


def prediction(**changed: Any) -> Prediction:
    given: dict[str, Any] = {
        "task_id": 1, "model_version_id": 1, "regions_json": "[]", "score": 0.5, "embedding": b"", "created_at": NOW,
    }  # fmt: skip
    return Prediction(**(given | changed))


def effort(**changed: Any) -> Effort:
    given: dict[str, Any] = {"annotation_id": 1, "updated_at": NOW, "measured_at": NOW}
    return Effort(**(given | changed))


def suspicion(**changed: Any) -> Suspicion:
    given: dict[str, Any] = {
        "project_id": 1, "annotation_id": 1, "label": "Lesion", "rank": 0, "score": 0.5, "evidence": {},
        "found_at": NOW,
    }  # fmt: skip
    return Suspicion(**(given | changed))


def fill(s: Session) -> None:
    item = {"round_id": 1, "annotation_id": 1, "label": "Lesion", "task_id": 1, "image_sha256": SHA256}
    for row in (
        project(),
        task(),
        annotation(),
        Mask(annotation_id=1, label="Lesion", sha256=SHA256),
        version(serving=True),
        a_round(candidate_id=1, verdict=Verdict.promoted),
        RoundItem(role=Role.train, mask_sha256=SHA256, prompt="a lesion", **item),
        prediction(),
        Query(round_id=1, rank=0, task_id=1, arm=Arm.strategy),
        effort(round_id=1, model_version_id=1, accepted=True, dice={"Lesion": 1.0}),
        Publication(round_id=1, name="wardround-r0-v1", attempt=1),
        suspicion(),
        Shard(round_id=1, number=0, task_ids=[1]),
        Worker(name="host:1", lanes="scoring", device="cpu", version="0.1.0", started_at=NOW, seen=0.0),
    ):
        s.add(row)
        s.flush()
