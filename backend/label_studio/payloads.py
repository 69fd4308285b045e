"""What Label Studio sends to a model server, and what it accepts as a prediction (measured on 1.23.2)."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.label_studio import masks as brush
from backend.label_studio import polygons, smart
from backend.label_studio.errors import BadPayload, BadScore, UnknownLabel, UnsupportedLabelConfig
from backend.label_studio.fields import (
    a_list,
    a_text,
    a_time,
    an_id,
    an_object,
    an_optional_id,
    objects,
    optional_seconds,
)
from backend.label_studio.images import as_stored
from backend.label_studio.label_config import Control, LabelConfig, parse_label_config

__all__ = [
    "Annotation",
    "Event",
    "LabelConfig",
    "PredictRequest",
    "Task",
    "ls_score",
    "parse_annotation",
    "parse_label_config",
    "parse_predict",
    "parse_setup",
    "parse_task",
    "parse_webhook",
    "prediction",
    "regions",
]

_ANNOTATION_ACTIONS = {"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED"}
_KNOWN_ACTIONS = _ANNOTATION_ACTIONS | {
    "ANNOTATIONS_DELETED",
    "TASKS_CREATED",
    "TASKS_DELETED",
    "PROJECT_CREATED",
    "PROJECT_UPDATED",
    "PROJECT_DELETED",
    "START_TRAINING",
}


@dataclass(frozen=True)
class Task:
    """One image to segment. ``image_url`` is as Label Studio stores it, "" where the task's data has none."""

    id: int
    project_id: int
    data: dict[str, Any]
    image_url: str


@dataclass(frozen=True)
class Annotation:
    """A person's answer. ``skipped`` answers hold no mask; ``regions`` are raw, for ``masks.masks_of``."""

    id: int
    task_id: int
    project_id: int
    completed_by: int | None
    lead_time_seconds: float | None
    created_at: datetime
    updated_at: datetime
    skipped: bool
    parent_prediction: int | None
    regions: list[dict[str, Any]]


@dataclass(frozen=True)
class PredictRequest:
    """Body of ``POST /predict``; ``context`` holds the click or box of a smart tool and is None otherwise.

    With a context, ``drawn`` has what is drawn on the tasks already, as ``smart.drawn`` orders it.
    """

    project_id: int
    label_config: str
    tasks: list[Task]
    context: dict[str, Any] | None
    drawn: list[list[Mapping[str, Any]]] = field(default_factory=list)


@dataclass(frozen=True)
class Event:
    """Body of ``POST /webhook``.

    An action that is not about tasks or annotations has empty lists. ``project_id`` is 0 only where an unknown action
    names no project. ``label_config`` is the project's, "" where the event does not carry it.
    """

    action: str
    project_id: int
    annotations: list[Annotation] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    deleted_annotation_ids: list[int] = field(default_factory=list)
    deleted_task_ids: list[int] = field(default_factory=list)
    label_config: str = ""


def parse_predict(body: Any) -> PredictRequest:
    """Read a request for predictions. Raises BadPayload, UnsupportedLabelConfig."""
    body = an_object(body, "body")
    project_id = _project_key(body.get("project"))
    label_config = a_text(body.get("label_config"), "label_config")
    image_key = parse_label_config(label_config).image_key
    whole = objects(a_list(body.get("tasks"), "tasks"), "tasks")
    tasks = [parse_task(task, project_id, image_key) for task in whole]
    params = an_object(body.get("params") or {}, "params")
    context = params.get("context")
    if not context:
        return PredictRequest(project_id, label_config, tasks, None)
    drawn = [regions for task in whole for regions in smart.drawn(task)]
    return PredictRequest(project_id, label_config, tasks, dict(an_object(context, "params.context")), drawn)


def parse_setup(body: Any) -> int:
    """Read ``POST /setup``: the id of the project. The token in the body is not kept. Raises BadPayload."""
    return _project_key(an_object(body, "body").get("project"))


def parse_webhook(body: Any) -> Event:
    """Read an event. An unknown action is an ordinary event without content. Raises BadPayload."""
    body = an_object(body, "body")
    action = a_text(body.get("action"), "action")
    project = body.get("project")
    if action not in _KNOWN_ACTIONS:
        known = isinstance(project, Mapping) and type(project.get("id")) is int
        return Event(action, an_id(project["id"], "project.id") if known else 0)
    project = an_object(project, "project")
    project_id = an_id(project.get("id"), "project.id")
    label_config = project.get("label_config") or ""
    content = _content(action, body, project_id, _image_key_or_none(label_config))
    return Event(action, project_id, **content, label_config=label_config)


def parse_task(task: Any, project_id: int, image_key: str | None) -> Task:
    """Read one task; ``image_key`` is the key of its data that holds the image's URL. Raises BadPayload."""
    task = an_object(task, "task")
    data = dict(an_object(task.get("data"), "task.data"))
    url = data.get(image_key) if image_key else None
    return Task(an_id(task.get("id"), "task.id"), project_id, data, as_stored(url) if isinstance(url, str) else "")


def parse_annotation(annotation: Any, project_id: int) -> Annotation:
    """Read one annotation. Raises BadPayload."""
    annotation = an_object(annotation, "annotation")
    return Annotation(
        id=an_id(annotation.get("id"), "annotation.id"),
        task_id=an_id(annotation.get("task"), "annotation.task"),
        project_id=project_id,
        completed_by=an_optional_id(annotation.get("completed_by"), "annotation.completed_by"),
        lead_time_seconds=optional_seconds(annotation.get("lead_time"), "annotation.lead_time"),
        created_at=a_time(annotation.get("created_at"), "annotation.created_at"),
        updated_at=a_time(annotation.get("updated_at"), "annotation.updated_at"),
        skipped=annotation.get("was_cancelled") is True,
        parent_prediction=an_optional_id(annotation.get("parent_prediction"), "annotation.parent_prediction"),
        regions=[dict(region) for region in objects(annotation.get("result") or [], "annotation.result")],
    )


def regions(
    label_config: LabelConfig, masks: Mapping[str, NDArray[np.bool_]], scores: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The regions of a prediction, in the order of the config's labels, each label drawn with its control.

    A label with a brush gives one region, which is the mask exactly; one with polygons alone gives a region for each
    piece, the same within ``polygons.MIN_IOU``.
    masks: label → (H, W) bool at the image's natural resolution; an empty mask gives no region.
    scores: label → confidence in [0, 1], shown beside the region; labels may be absent.
    The same masks give the same regions, ids included. Raises UnknownLabel, BadScore, BadMask.
    """
    unknown = sorted({*masks, *scores} - set(label_config.labels))
    if unknown:
        raise UnknownLabel(f"labels {unknown} are not in the label config, which has {list(label_config.labels)}")
    painted = [label for label in label_config.labels if label in masks and masks[label].any()]
    return [region for label in painted for region in _regions(label_config, label, masks[label], scores.get(label))]


def prediction(task_id: int, model_version: str, regions: list[dict[str, Any]], ls_score: float) -> dict[str, Any]:
    """One item for ``LabelStudioClient.import_predictions``. Raises BadScore."""
    return {"task": task_id, "model_version": model_version, "score": _in_unit(ls_score), "result": regions}


def ls_score(rank: int, size: int) -> float:
    """The LS score of the task at ``rank`` (0 = asked first) in a queue of ``size`` tasks.

    Label Studio serves the lowest score first, ours asks for the highest first: here, and only here, the sign turns.
    Strictly inside (0, 1), ascending in rank, distinct for every queue Label Studio can hold. Raises BadScore.
    """
    if not 0 <= rank < size:
        raise BadScore(f"rank {rank} is outside a queue of {size} tasks; ranks are 0 to size - 1")
    return (rank + 1) / (size + 1)


def _regions(
    label_config: LabelConfig, label: str, mask: NDArray[np.bool_], score: float | None
) -> list[dict[str, Any]]:
    control = label_config.control_for(label)
    if control.kind == "brush":
        values: list[dict[str, Any]] = [{"format": "rle", "rle": brush.encode(mask)}]
    else:
        values = [{"points": points, "closed": True} for points in polygons.encode(mask)]
    return [_region(label_config.to_name, control, label, mask.shape, value, score) for value in values]


def _region(
    to_name: str, control: Control, label: str, shape: tuple[int, ...], value: dict[str, Any], score: float | None
) -> dict[str, Any]:
    kind = f"{control.kind}labels"
    region = {
        "id": hashlib.sha256(f"{control.name}\0{label}\0".encode() + _drawing(value)).hexdigest()[:10],
        "from_name": control.name,
        "to_name": to_name,
        "type": kind,
        "original_width": shape[1],
        "original_height": shape[0],
        "image_rotation": 0,
        "value": value | {kind: [label]},
    }
    return region if score is None else region | {"score": _in_unit(score)}


def _drawing(value: dict[str, Any]) -> bytes:
    return bytes(value["rle"]) if "rle" in value else repr(value["points"]).encode()


def _in_unit(score: float) -> float:
    if not (math.isfinite(score) and 0 <= score <= 1):
        raise BadScore(f"score {score} is outside [0, 1], where Label Studio drops predictions silently")
    return float(score)


def _project_key(value: Any) -> int:
    """``"12.1795395924"`` (id, second of creation) → 12."""
    head = a_text(value, "project").partition(".")[0]
    if not (head.isascii() and head.isdigit() and len(head) < 19 and int(head)):
        raise BadPayload("project must begin with the id of the project, such as '12.1795395924'")
    return int(head)


def _image_key_or_none(label_config: Any) -> str | None:
    # An event about a project whose config is not painted yet is still an event
    try:
        return parse_label_config(a_text(label_config, "project.label_config")).image_key
    except UnsupportedLabelConfig:
        return None


def _content(action: str, body: Mapping[str, Any], project_id: int, image_key: str | None) -> dict[str, Any]:
    """The fields of the event that its action fills."""
    if action in _ANNOTATION_ACTIONS:
        return {
            "annotations": [parse_annotation(item, project_id) for item in _objects(body, "annotation")],
            "tasks": [parse_task(item, project_id, image_key) for item in _objects(body, "task")],
        }
    if action == "ANNOTATIONS_DELETED":
        return {"deleted_annotation_ids": _ids(body, "annotations")}
    if action == "TASKS_CREATED":
        return {"tasks": [parse_task(item, project_id, image_key) for item in _objects(body, "tasks")]}
    if action == "TASKS_DELETED":
        return {"deleted_task_ids": _ids(body, "tasks")}
    return {}


def _objects(body: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return objects(body.get(name), name)


def _ids(body: Mapping[str, Any], name: str) -> list[int]:
    return [an_id(item.get("id"), f"{name}[{n}].id") for n, item in enumerate(_objects(body, name))]
