"""A Label Studio in memory that can be connected: model servers, webhooks and tabs as 1.23.2 keeps them."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.label_studio.connections import model_server, webhook
from tests.backend.fakes import FakeLabelStudio


@dataclass
class Connectable(FakeLabelStudio):
    """`changes` counts what was created, changed or deleted in it."""

    backends: list[dict[str, Any]] = field(default_factory=list)
    hooks: list[dict[str, Any]] = field(default_factory=list)
    views: list[dict[str, Any]] = field(default_factory=list)
    changes: int = 0

    def __post_init__(self) -> None:
        self.settings |= {
            "show_collab_predictions": True,
            "evaluate_predictions_automatically": False,
            "min_annotations_to_start_training": 0,
            "maximum_annotations": 1,
        }

    # ------------------------------------------------------------------------------------------------- webhooks

    def webhooks(self, project_id: int) -> list[dict[str, Any]]:
        self._answer()
        return copy.deepcopy(self.hooks)

    def create_webhook(self, project_id: int, url: str, headers: dict[str, str], actions: Any) -> dict[str, Any]:
        self._change()
        self.hooks.append({"id": self.changes} | webhook(project_id, url, headers, actions))
        return self.hooks[-1]

    def update_webhook(
        self, webhook_id: int, project_id: int, url: str, headers: dict[str, str], actions: Any
    ) -> dict[str, Any]:
        self._change()
        (found,) = [hook for hook in self.hooks if hook["id"] == webhook_id]
        found |= webhook(project_id, url, headers, actions)
        return found

    def delete_webhook(self, webhook_id: int) -> None:
        self._change()
        self.hooks = [hook for hook in self.hooks if hook["id"] != webhook_id]

    # -------------------------------------------------------------------------------------------- model servers

    def ml_backends(self, project_id: int) -> list[dict[str, Any]]:
        self._answer()
        return [
            {name: value for name, value in backend.items() if name != "basic_auth_pass"} for backend in self.backends
        ]

    def create_ml_backend(self, project_id: int, url: str, title: str, user: str, password: str) -> dict[str, Any]:
        """Makes a webhook without any secret as well, and takes the title for the model version."""
        self._change()
        shown = {"id": self.changes, "state": "CO", "basic_auth_pass_is_set": True}
        self.backends.append(shown | model_server(project_id, url, title, user, password))
        self.create_webhook(project_id, f"{url}/webhook", {}, [])
        self.hooks[-1]["send_for_all_actions"] = True
        self.settings["model_version"] = self.settings["model_version"] or title
        return self.backends[-1]

    def update_ml_backend(
        self, backend_id: int, project_id: int, url: str, title: str, user: str, password: str
    ) -> dict[str, Any]:
        self._change()
        (found,) = [backend for backend in self.backends if backend["id"] == backend_id]
        found |= model_server(project_id, url, title, user, password)
        return found

    def delete_ml_backend(self, backend_id: int) -> None:
        self._change()
        self.backends = [backend for backend in self.backends if backend["id"] != backend_id]

    # ----------------------------------------------------------------------------------------------------- tabs

    def tabs(self, project_id: int) -> list[dict[str, Any]]:
        self._answer()
        return copy.deepcopy(self.views)

    def create_tab(self, project_id: int, data: Mapping[str, Any]) -> dict[str, Any]:
        self._change()
        self.views.append({"id": self.changes, "data": copy.deepcopy(dict(data))})
        return self.views[-1]

    def update_tab(self, tab_id: int, project_id: int, data: Mapping[str, Any]) -> dict[str, Any]:
        self._change()
        (found,) = [view for view in self.views if view["id"] == tab_id]
        found["data"] = copy.deepcopy(dict(data))
        return found

    def delete_tab(self, tab_id: int) -> None:
        self._change()
        self.views = [view for view in self.views if view["id"] != tab_id]

    # --------------------------------------------------------------------------------------- settings, predictions

    def update_project(self, project_id: int, **fields: Any) -> dict[str, Any]:
        self._change()
        return super().update_project(project_id, **fields)

    def unlabelled_tasks(self, project_id: int) -> list[int]:
        self._answer()
        return sorted(set(self.task_rows) - {one.task_id for one in self.annotations.values()})

    def unserved_tasks(self, project_id: int) -> list[int]:
        return sorted(set(self.unlabelled_tasks(project_id)) - set(self.served_order(project_id)))

    def surplus_predictions(self, project_id: int, version: str) -> list[int]:
        numbers: dict[int, list[int]] = defaultdict(list)
        for number, item in enumerate(self.imported, start=1):
            if item["model_version"] == version and any(one is item for one in self.predictions):
                numbers[item["task"]].append(number)
        waiting = self.unlabelled_tasks(project_id)
        return [number for task_id, found in numbers.items() if task_id in waiting for number in found[1:]]

    def _change(self) -> None:
        self._answer()
        self.changes += 1


def titles(views: Sequence[Mapping[str, Any]]) -> list[str]:
    return [view["data"]["title"] for view in views]
