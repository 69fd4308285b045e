"""Filters of Label Studio's Data Manager: which tasks a page holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def where(column: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def all_of(filters: list[dict[str, Any]]) -> dict[str, Any]:
    return {"conjunction": "and", "items": filters}


UNLABELLED = where("is_labeled", "equal", "Boolean", False)
# By a prediction of the project's current model version.
SCORED = where("predictions_score", "empty", "Number", False)
UNSCORED = where("predictions_score", "empty", "Number", True)
SERVED = {"filters": all_of([UNLABELLED, SCORED]), "ordering": ["tasks:predictions_score"]}


def having(version: str) -> dict[str, Any]:
    """Tasks with a prediction of a model version, or of one whose name holds this name."""
    return where("predictions_model_versions", "contains", "List", [version])


def behind(task_id: int) -> dict[str, Any]:
    return where("id", "greater", "Number", task_id)


def changed_after(time: datetime) -> dict[str, Any]:
    return where("updated_at", "greater", "Datetime", time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
