"""The tab "Likely errors" in the Data Manager: annotations that a model which never saw them contradicts.

Label Studio orders a tab by its own columns alone (1.23 refuses `meta`, and the score column belongs to the published
version), so the tab holds few annotations, the likeliest errors that nobody has changed since. It selects them by the
ids of the annotations, a filter that people can also set by hand: one that is deleted leaves by itself, and nothing is
written into anybody's tasks, annotations or predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.context import Context
from backend.wiring.finding import Wired
from backend.wiring.tabs import COLUMNS

TITLE = "Likely errors"
_SHOWN = ("id", "completed_at", "updated_at", "annotators", "annotations_ids", "total_annotations")
_FILTER = "filter:tasks:annotations_ids"


def show(ctx: Context, project_id: int, annotation_ids: Sequence[int]) -> None:
    """Make the tab hold these annotations, whatever was there of it; without any, take it away."""
    ours = _ours(ctx, project_id)
    for tab in ours[1:] if annotation_ids else ours:
        ctx.label_studio.delete_tab(tab["id"])
    if not annotation_ids:
        return
    if not ours:
        ctx.label_studio.create_tab(project_id, _data(annotation_ids))
        return
    kept = ours[0]
    if kept["data"].get("filters") != _filters(annotation_ids):
        ctx.label_studio.update_tab(kept["id"], project_id, kept["data"] | {"filters": _filters(annotation_ids)})


def remove(wired: Wired) -> None:
    show(wired.ctx, wired.project.id, [])


def _ours(ctx: Context, project_id: int) -> list[dict[str, Any]]:
    return [tab for tab in ctx.label_studio.tabs(project_id) if _is_ours(tab.get("data") or {})]


def _is_ours(data: Mapping[str, Any]) -> bool:
    """A tab of that name with another filter is somebody else's."""
    items = (data.get("filters") or {}).get("items") or []
    return data.get("title") == TITLE and [item.get("filter") for item in items] == [_FILTER]


def _filters(annotation_ids: Sequence[int]) -> dict[str, Any]:
    ids = " ".join(map(str, sorted(annotation_ids)))
    return {
        "conjunction": "and",
        "items": [{"filter": _FILTER, "operator": "contains", "type": "String", "value": ids}],
    }


def _data(annotation_ids: Sequence[int]) -> dict[str, Any]:
    hidden = [f"tasks:{column}" for column in COLUMNS if column not in _SHOWN]
    return {
        "title": TITLE,
        "type": "list",
        "target": "tasks",
        "ordering": ["tasks:id"],
        "filters": _filters(annotation_ids),
        "hiddenColumns": {"explore": hidden, "labeling": [f"tasks:{column}" for column in COLUMNS[1:]]},
    }
