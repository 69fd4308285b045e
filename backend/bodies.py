"""What the routes take, in the words of OpenAPI: for people who read it, and for tests that send everything it allows.

The parsers in `label_studio.payloads` decide; Label Studio sends far more than they look at, so every object is open.
"""

from __future__ import annotations

from typing import Any

_ID = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
_TEXT = {"type": "string"}
_TIME = {"type": "string", "format": "date-time"}
_PROJECT_KEY = {"type": "string", "pattern": r"^[1-9][0-9]{0,8}\.[0-9]{10}$", "description": "id.second of creation"}
_LABEL_CONFIG = {
    "type": "string",
    "examples": [
        '<View><Image name="image" value="$image"/>'
        '<BrushLabels name="brush" toName="image"><Label value="Lesion"/></BrushLabels></View>'
    ],
}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def _list_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "maxItems": 20}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_TASK = _object(("id", "data"), id=_ID, data=_object(image=_TEXT))
_REGION = _object(
    id=_TEXT,
    from_name=_TEXT,
    to_name=_TEXT,
    type={"enum": ["brushlabels", "polygonlabels", "rectanglelabels", "keypointlabels", "choices"]},
    original_width={"type": "integer"},
    original_height={"type": "integer"},
    image_rotation={"type": "number"},
    is_positive={"type": "boolean"},
    value=_object(
        format={"enum": ["rle"]},
        rle=_list_of({"type": "integer", "minimum": 0, "maximum": 255}),
        points=_list_of(_list_of({"type": "number"})),
        x={"type": "number"},
        y={"type": "number"},
        width={"type": "number"},
        height={"type": "number"},
        rotation={"type": "number"},
        brushlabels=_list_of(_TEXT),
        polygonlabels=_list_of(_TEXT),
        rectanglelabels=_list_of(_TEXT),
        keypointlabels=_list_of(_TEXT),
    ),
)
_ANNOTATION = _object(
    ("id", "task", "created_at", "updated_at"),
    id=_ID,
    task=_ID,
    completed_by={"type": ["integer", "null"], "minimum": 1, "maximum": 2**31 - 1},
    lead_time={"type": ["number", "null"]},
    created_at=_TIME,
    updated_at=_TIME,
    was_cancelled={"type": "boolean"},
    parent_prediction={"type": ["integer", "null"], "minimum": 1, "maximum": 2**31 - 1},
    result=_list_of(_REGION),
)
_PROJECT = _object(("id",), id=_ID, label_config=_LABEL_CONFIG)
_ONLY_ID = _object(("id",), id=_ID)


def _event(action: str, required: tuple[str, ...] = (), **content: Any) -> dict[str, Any]:
    return _object(("action", "project", *required), action={"const": action}, project=_PROJECT, **content)


SETUP = _body(_object(("project",), project=_PROJECT_KEY, schema=_TEXT, hostname=_TEXT, access_token=_TEXT))
PREDICT = _body(
    _object(
        ("project", "label_config", "tasks"),
        project=_PROJECT_KEY,
        label_config=_LABEL_CONFIG,
        tasks=_list_of(_TASK),
        params=_object(context={"anyOf": [{"type": "null"}, _object(result=_list_of(_REGION))]}),
    )
)
WEBHOOK = _body(
    {
        "anyOf": [
            _event("ANNOTATION_CREATED", ("annotation", "task"), annotation=_ANNOTATION, task=_TASK),
            _event("ANNOTATION_UPDATED", ("annotation", "task"), annotation=_ANNOTATION, task=_TASK),
            _event(
                "ANNOTATIONS_CREATED", ("annotation", "task"), annotation=_list_of(_ANNOTATION), task=_list_of(_TASK)
            ),
            _event("ANNOTATIONS_DELETED", ("annotations",), annotations=_list_of(_ONLY_ID)),
            _event("TASKS_CREATED", ("tasks",), tasks=_list_of(_TASK)),
            _event("TASKS_DELETED", ("tasks",), tasks=_list_of(_ONLY_ID)),
            _event("PROJECT_UPDATED"),
            _event("START_TRAINING"),
        ]
    }
)
ROLLBACK = _body(_object(("version",), version=_ID))
