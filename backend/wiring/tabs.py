"""Two tabs in the Data Manager: the queue as it is served, and what has been annotated, newest first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.wiring.finding import Finding, Wired

# The columns that Label Studio 1.23 has for every project; what a tab does not hide, it shows.
COLUMNS = (
    "id", "inner_id", "completed_at", "total_annotations", "cancelled_annotations", "total_predictions", "annotators",
    "annotations_results", "annotations_ids", "predictions_score", "predictions_model_versions", "predictions_results",
    "file_upload", "storage_filename", "created_at", "updated_at", "updated_by", "avg_lead_time", "draft_exists",
)  # fmt: skip


@dataclass(frozen=True)
class Tab:
    """A tab as we make it. A guarded one is put right where somebody changed its order or filter."""

    title: str
    ordering: str
    operator: str  # how the number of a task's annotations compares with 0
    shown: tuple[str, ...]
    guarded: bool

    @property
    def filters(self) -> dict[str, Any]:
        item = {
            "filter": "filter:tasks:total_annotations",
            "operator": self.operator,
            "type": "Number",
            "value": 0,
        }
        return {"conjunction": "and", "items": [item]}

    @property
    def data(self) -> dict[str, Any]:
        hidden = [f"tasks:{column}" for column in COLUMNS if column not in self.shown]
        return {
            "title": self.title,
            "type": "list",
            "target": "tasks",
            "ordering": [self.ordering],
            "filters": self.filters,
            "hiddenColumns": {"explore": hidden, "labeling": [f"tasks:{column}" for column in COLUMNS[1:]]},
        }

    def is_made_so(self, there: Mapping[str, Any]) -> bool:
        """Whether a tab orders and filters like ours; its columns are everybody's own."""
        data = there.get("data") or {}
        filters = data.get("filters") or {}
        items = [{name: item.get(name) for name in self.filters["items"][0]} for item in filters.get("items") or []]
        return list(data.get("ordering") or []) == [self.ordering] and items == self.filters["items"]


QUEUE = Tab(
    "Uncertainty queue",
    "tasks:predictions_score",
    "equal",
    ("id", "predictions_score", "predictions_model_versions", "draft_exists"),
    guarded=True,
)
REVIEW = Tab(
    "Review",
    "-tasks:completed_at",
    "greater",
    ("id", "completed_at", "annotators", "avg_lead_time", "total_annotations", "predictions_score"),
    guarded=False,
)


def findings(wired: Wired) -> list[Finding]:
    there = wired.ctx.label_studio.tabs(wired.project.id)
    return [finding for tab in (QUEUE, REVIEW) for finding in _of_tab(wired, tab, there)]


def remove(wired: Wired) -> None:
    """A "Review" that somebody arranged for themselves stays."""
    for there in wired.ctx.label_studio.tabs(wired.project.id):
        if any(_has_title(tab, there) and (tab.guarded or tab.is_made_so(there)) for tab in (QUEUE, REVIEW)):
            wired.ctx.label_studio.delete_tab(there["id"])


def _of_tab(wired: Wired, tab: Tab, there: list[dict[str, Any]]) -> list[Finding]:
    named = [one for one in there if _has_title(tab, one)]
    if not named:

        def create() -> None:
            wired.ctx.label_studio.create_tab(wired.project.id, tab.data)

        message = f"the Data Manager of project {wired.project.id} has no tab {tab.title!r}"
        return [wired.warning("tab-missing", message, f"make the tab {tab.title!r}", create)]
    if not tab.guarded:
        return []
    kept = next((one for one in named if tab.is_made_so(one)), named[0])
    found = [] if tab.is_made_so(kept) else [_changed(wired, tab, kept)]
    return found + [_surplus(wired, tab, one) for one in named if one is not kept]


def _has_title(tab: Tab, there: Mapping[str, Any]) -> bool:
    return (there.get("data") or {}).get("title") == tab.title


def _changed(wired: Wired, tab: Tab, there: Mapping[str, Any]) -> Finding:
    def update() -> None:
        data = there["data"] | {"ordering": [tab.ordering], "filters": tab.filters}
        wired.ctx.label_studio.update_tab(there["id"], wired.project.id, data)

    message = f"the tab {tab.title!r} of project {wired.project.id} shows another order or selection than the queue's"
    return wired.warning("tab-changed", message, f"set order and filter of the tab {tab.title!r} right", update)


def _surplus(wired: Wired, tab: Tab, there: Mapping[str, Any]) -> Finding:
    def delete() -> None:
        wired.ctx.label_studio.delete_tab(there["id"])

    message = f"project {wired.project.id} has the tab {tab.title!r} twice"
    return wired.warning("tab-duplicate", message, f"remove the second tab {tab.title!r}", delete)
