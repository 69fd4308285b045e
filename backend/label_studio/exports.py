"""A project as Label Studio exports it in the format JSON: a list of tasks, each with its annotations.

The file does not say what the label config was. Without one it is made of what was painted: a label that nobody ever
used is missing then, and so would every mask of it be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson

from backend.errors import NotAnExport, NothingLabelled
from backend.label_studio.errors import BadPayload
from backend.label_studio.label_config import parse_label_config
from backend.label_studio.payloads import Annotation, Task, parse_annotation, parse_task

MAX_BYTES = 2_000_000_000
"""It is read as a whole, and takes a few times as much memory."""

_CURE = "in Label Studio choose Export, format JSON"
_CONTROLS = {"brushlabels": "BrushLabels", "polygonlabels": "PolygonLabels"}
_IMAGE = re.compile(r"(?i)\.(png|jpe?g|bmp|tiff?|webp|gif)(?=$|[?#])|^/data/|^(s3|gs|azure-blob)://")


@dataclass(frozen=True)
class Export:
    """What the file says of a project; ``tasks`` and ``annotations`` are as a pull would have brought them."""

    label_config: str
    tasks: list[Task]
    annotations: dict[int, list[Annotation]]


def read_export(path: Path, project_id: int, label_config: str | None = None, max_bytes: int = MAX_BYTES) -> Export:
    """Read a file as the project of that id. ``label_config`` is the XML of its project, if there is more to know.

    Raises NotAnExport, NothingLabelled where nothing was painted and no label config says what to look for,
    UnsupportedLabelConfig.
    """
    whole = _tasks_in(path, max_bytes)
    label_config = label_config if label_config is not None else _painted_config(path, whole)
    image_key = parse_label_config(label_config).image_key
    tasks: dict[int, Task] = {}
    annotations: dict[int, list[Annotation]] = {}
    for number, raw in enumerate(whole, start=1):
        try:
            task = parse_task(raw, project_id, image_key)
            annotations[task.id] = [parse_annotation(one | {"task": task.id}, project_id) for one in raw["annotations"]]
        except BadPayload as error:
            raise NotAnExport(f"{path}, task {number} of the list: {error}") from error
        if task.id in tasks:
            raise NotAnExport(f"{path} holds task {task.id} twice; export the project anew rather than joining files")
        tasks[task.id] = task
    return Export(label_config, list(tasks.values()), annotations)


def _tasks_in(path: Path, max_bytes: int) -> list[dict[str, Any]]:
    """The tasks as they stand in the file: objects whose data are an object, and whose annotations are objects."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise NotAnExport(f"{path} has {size:,} bytes, more than {max_bytes:,}; export parts of it by a filter")
        found = orjson.loads(path.read_bytes())
    except OSError as error:
        raise NotAnExport(f"{path} cannot be read ({error.strerror})") from error
    except orjson.JSONDecodeError as error:
        raise NotAnExport(f"{path} is not JSON ({error}); {_CURE}") from error
    if not isinstance(found, list) or not all(isinstance(task, dict) for task in found):
        raise NotAnExport(f"{path} is not a list of tasks; {_CURE}, not COCO or another")
    for number, task in enumerate(found, start=1):
        _require_a_task(task, f"{path}, task {number} of the list")
    return found


def _require_a_task(task: Mapping[str, Any], where: str) -> None:
    if "annotations" not in task and "annotation_id" in task:
        raise NotAnExport(f"{where} is in the format JSON_MIN, which leaves out what skips and edits are; {_CURE}")
    given = task.get("annotations")
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise NotAnExport(f"{where} has no list of annotations; {_CURE}")
    if not isinstance(task.get("data"), dict):
        raise NotAnExport(f"{where} has no data; {_CURE}")


def _painted_config(path: Path, tasks: Sequence[Mapping[str, Any]]) -> str:
    """The label config that what was painted in these tasks tells of."""
    labels: dict[tuple[str, str, str], dict[str, None]] = {}  # in the order in which they were met
    for region in _regions(tasks):
        kind = region["type"]
        control = kind, str(region.get("from_name")), str(region.get("to_name"))
        value = region.get("value")
        given = value.get(kind) if isinstance(value, dict) else None
        if isinstance(given, list):
            labels.setdefault(control, {}).update((label, None) for label in given if isinstance(label, str))
    if not labels:
        raise NothingLabelled(
            f"nothing in {path} was painted with BrushLabels or PolygonLabels; paint some masks first, or name the "
            "project's label config if all its images are really empty"
        )
    return _as_xml(labels, _image_key(path, tasks, {to_name for _, _, to_name in labels}))


def _regions(tasks: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for task in tasks:
        for annotation in task["annotations"]:
            result = annotation.get("result")
            for region in result if isinstance(result, list) else []:
                if isinstance(region, dict) and region.get("type") in _CONTROLS:
                    yield region


def _image_key(path: Path, tasks: Sequence[Mapping[str, Any]], to_names: set[str]) -> str:
    """The key of task data that holds the image in every task; where several could, the one named like the image."""
    keys = [{key for key, value in task["data"].items() if _is_an_image(value)} for task in tasks]
    common = set.intersection(*keys)
    for likely in (common, common & to_names, common & {"image"}):
        if len(likely) == 1:
            return str(next(iter(likely)))
    which = f"one of {', '.join(sorted(common))}" if common else "no key"
    raise NotAnExport(f"{path}: {which} of the tasks' data is their image; name the project's label config")


def _is_an_image(value: object) -> bool:
    return isinstance(value, str) and _IMAGE.search(value) is not None


def _as_xml(labels: Mapping[tuple[str, str, str], Mapping[str, None]], image_key: str) -> str:
    view = ElementTree.Element("View")
    for to_name in dict.fromkeys(to_name for _, _, to_name in labels):
        ElementTree.SubElement(view, "Image", name=to_name, value=f"${image_key}")
    for (kind, name, to_name), used in labels.items():
        control = ElementTree.SubElement(view, _CONTROLS[kind], name=name, toName=to_name)
        for label in used:
            ElementTree.SubElement(control, "Label", value=label)
    return ElementTree.tostring(view, encoding="unicode")
