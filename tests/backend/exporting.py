"""A project as a file in Label Studio's format JSON, and its images as files of a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.label_studio.payloads import Annotation
from tests.backend.fakes import FakeLabelStudio


def exported(label_studio: FakeLabelStudio) -> list[dict[str, Any]]:
    """What Label Studio would put into the file; tasks nobody answered are in it as well."""
    found = list(label_studio.annotations.values())
    return [
        {
            "id": task.id, "data": task.data, "meta": {}, "predictions": [], "drafts": [], "project": task.project_id,
            "annotations": [_annotation(one) for one in found if one.task_id == task.id],
        }
        for task in label_studio.task_rows.values()
    ]  # fmt: skip


def write_export(folder: Path, label_studio: FakeLabelStudio) -> Path:
    path = folder / "export.json"
    path.write_text(json.dumps(exported(label_studio)), encoding="utf-8")
    return path


def write_images(folder: Path, images: Mapping[str, bytes]) -> Path:
    """Images by URL, under the last part of it."""
    folder.mkdir()
    for url, content in images.items():
        (folder / url.rpartition("/")[2]).write_bytes(content)
    return folder


def _annotation(one: Annotation) -> dict[str, Any]:
    return {
        "id": one.id, "completed_by": one.completed_by, "result": one.regions, "was_cancelled": one.skipped,
        "ground_truth": False, "created_at": one.created_at.isoformat(), "updated_at": one.updated_at.isoformat(),
        "lead_time": one.lead_time_seconds, "task": one.task_id, "project": one.project_id, "parent_prediction": None,
    }  # fmt: skip
