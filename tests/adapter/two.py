"""A stand-in for label-studio-ml 2.x, which no package index has: the parts of it that a model server touches.

Written from what 2.x does: a model for each request, made with the project and its label config; `setup()` called by
the constructor; `fit(event, data)` inside the webhook's request, for the events that `TRAIN_EVENTS` names.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any


class LabelStudioMLBase:
    kept: dict[tuple[str, str], Any]

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = project_id or ""
        if label_config is not None:
            self.set("label_config", label_config)
        if self.get("model_version") is None:
            self.set("model_version", "0.0.1")
        self.setup()

    def setup(self) -> None:
        """For subclasses."""

    def get(self, key: str) -> Any:
        return self.kept.get((self.project_id, key))

    def set(self, key: str, value: Any) -> None:
        self.kept[self.project_id, key] = value

    @property
    def label_config(self) -> Any:
        return self.get("label_config")


def installed(modules: dict[str, ModuleType]) -> ModuleType:
    """Put the stand-in where `import label_studio_ml` looks (`sys.modules`, or a copy); returns its `api`."""
    package, api, model = (ModuleType(f"label_studio_ml{part}") for part in ("", ".api", ".model"))
    base = type("LabelStudioMLBase", (LabelStudioMLBase,), {"kept": {}})
    events = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED", "START_TRAINING")
    vars(model).update(LabelStudioMLBase=base)
    vars(api).update(TRAIN_EVENTS=events, init_app=lambda model_class, *_: Server(api, model_class))
    vars(package).update(api=api, model=model)
    modules |= {module.__name__: module for module in (package, api, model)}
    return api


class Server:
    """What `init_app` returns, as far as it answers Label Studio."""

    def __init__(self, api: ModuleType, model_class: Any) -> None:
        self._api, self._model_class = api, model_class

    def setup(self, body: dict[str, Any]) -> dict[str, Any]:
        model = self._model_class(project_id=body["project"].partition(".")[0], label_config=body["schema"])
        return {"model_version": model.get("model_version")}

    def predict(self, body: dict[str, Any]) -> dict[str, Any]:
        model = self._model_class(project_id=body["project"].partition(".")[0], label_config=body["label_config"])
        params = dict(body["params"])
        return {"results": model.predict(body["tasks"], context=params.pop("context"), **params)}

    def webhook(self, body: dict[str, Any]) -> dict[str, Any]:
        data = dict(body)
        event = data.pop("action")
        if event not in self._api.TRAIN_EVENTS:
            return {"status": "Unknown event"}
        model = self._model_class(str(data["project"]["id"]), label_config=data["project"]["label_config"])
        return {"result": model.fit(event, data), "status": "ok"}


def loaded(name: str, path: Path) -> ModuleType:
    """The module of a file, made anew."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
