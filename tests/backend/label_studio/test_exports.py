"""An export is read whole or refused in words; its label config is made of what was painted where none is given."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import NotAnExport, NothingLabelled, WardroundError
from backend.label_studio.errors import UnsupportedLabelConfig
from backend.label_studio.exports import read_export
from backend.label_studio.label_config import parse_label_config
from tests.backend.exporting import exported
from tests.backend.fakes import LABEL_CONFIG, FakeLabelStudio

Tasks = list[dict[str, Any]]


@pytest.fixture
def tasks() -> Tasks:
    fake = FakeLabelStudio()
    for task_id in (5, 3):
        fake.add_task(task_id, group="a")
        fake.annotate(100 + task_id, task_id)
    return exported(fake)


def written(folder: Path, content: Any) -> Path:
    path = folder / "export.json"
    path.write_bytes(content if isinstance(content, bytes) else orjson.dumps(content))
    return path


def test_tasks_and_annotations_come_as_a_pull_would_bring_them(tmp_path: Path, tasks: Tasks) -> None:
    tasks[0]["annotations"][0] |= {"completed_by": {"id": 4, "email": "a@b.c"}, "task": 99, "was_cancelled": True}
    found = read_export(written(tmp_path, tasks), project_id=8, label_config=LABEL_CONFIG)
    assert [(task.id, task.project_id, task.image_url) for task in found.tasks] == [
        (5, 8, "/data/upload/1/5.png"),
        (3, 8, "/data/upload/1/3.png"),
    ]
    [skipped] = found.annotations[5]
    assert (skipped.task_id, skipped.project_id, skipped.completed_by, skipped.skipped) == (5, 8, 4, True)


def test_the_label_config_is_made_of_what_was_painted(tmp_path: Path, tasks: Tasks) -> None:
    regions = tasks[1]["annotations"][0]["result"]
    outlined = {"type": "polygonlabels", "from_name": 'a "pen"', "to_name": "image", "value": {}}
    regions += [
        outlined | {"value": {"polygonlabels": ["Örgan <2>", "Lesion"]}},
        outlined | {"type": "rectanglelabels"}, outlined | {"value": None}, {"type": 7}, None,
    ]  # fmt: skip
    for task in tasks:
        task["data"] |= {"report": "/data/text/1.txt", "group": "b.png and more"}
    read = read_export(written(tmp_path, [{**task, "annotations": task["annotations"]} for task in tasks[:1]]), 1)
    assert parse_label_config(read.label_config) == parse_label_config(LABEL_CONFIG)
    tasks[1]["annotations"][0]["result"] = regions[:-2]
    config = parse_label_config(read_export(written(tmp_path, tasks), 1).label_config)
    assert [(one.name, one.kind, one.labels) for one in config.controls] == [
        ("brush", "brush", ("Lesion",)),
        ('a "pen"', "polygon", ("Örgan <2>", "Lesion")),
    ]
    assert config.image_key == "image"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"scan": "s3://b/1", "group": "g"}, "scan"),
        ({"scan": "https://h/1.PNG?token=a.b", "note": "see 2.png for more"}, "scan"),
        ({"image": "/data/upload/1/a.png", "mask": "/data/upload/1/b.png"}, "image"),
        ({"left": "a.jpg", "right": "b.jpg"}, None),
        ({"text": "no image here"}, None),
    ],
)
def test_the_key_of_the_image_is_found_or_asked_for(
    tmp_path: Path, tasks: Tasks, keys: dict[str, str], expected: str | None
) -> None:
    for task in tasks:
        task["data"] = keys
    path = written(tmp_path, tasks)
    if expected is None:
        with pytest.raises(NotAnExport, match="name the project's label config"):
            read_export(path, 1)
    else:
        assert {task.image_url for task in read_export(path, 1).tasks} == {keys[expected]}


def changed(tasks: Tasks, **values: Any) -> Tasks:
    return [tasks[0], tasks[1] | values]


MINIMAL = {"id": 1, "image": "/data/upload/1/1.png", "annotator": 1, "annotation_id": 7, "brush": []}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda _: b"", "is not JSON"),
        (lambda _: b'[{"id": 1}', "is not JSON"),
        (lambda _: b"[" * 100_000, "is not JSON"),
        (lambda _: b"\x89PNG\r\n", "is not JSON"),
        (lambda _: {"images": [], "annotations": []}, "not a list of tasks.*not COCO"),
        (lambda _: [1], "not a list of tasks"),
        (lambda _: [MINIMAL], "task 1 of the list is in the format JSON_MIN"),
        (lambda tasks: changed(tasks, annotations={}), "task 2 of the list has no list of annotations"),
        (lambda tasks: changed(tasks, annotations=[[]]), "task 2 of the list has no list of annotations"),
        (lambda tasks: changed(tasks, data="/data/1.png"), "task 2 of the list has no data"),
        (lambda tasks: changed(tasks, id="two"), "task 2 of the list: task.id must be an id"),
        (lambda tasks: changed(tasks, id=2**31), "task 2 of the list: task.id must be an id"),
        (lambda tasks: [*tasks, tasks[0]], "holds task 5 twice"),
        (lambda tasks: changed(tasks, annotations=[{"id": 1, "result": []}]), "task 2 .*annotation.created_at must be"),
    ],
)
def test_what_is_no_export_is_named(tmp_path: Path, tasks: Tasks, spoil: Any, message: str) -> None:
    with pytest.raises(NotAnExport, match=message):
        read_export(written(tmp_path, spoil(tasks)), 1)


def test_sizes_and_absence_are_said_before_reading(tmp_path: Path, tasks: Tasks) -> None:
    path = written(tmp_path, tasks)
    with pytest.raises(NotAnExport, match="more than 100; export parts"):
        read_export(path, 1, max_bytes=100)
    with pytest.raises(NotAnExport, match="cannot be read"):
        read_export(tmp_path / "nothing.json", 1)


def test_nothing_painted_asks_for_masks_or_a_label_config(tmp_path: Path, tasks: Tasks) -> None:
    for task in tasks:
        task["annotations"][0]["result"] = []
    path = written(tmp_path, tasks)
    for content in (path, written(tmp_path, [])):
        with pytest.raises(NothingLabelled, match="label config"):
            read_export(content, 1)
    assert read_export(written(tmp_path, tasks), 1, LABEL_CONFIG).label_config == LABEL_CONFIG
    with pytest.raises(UnsupportedLabelConfig):
        read_export(path, 1, "<View/>")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**40) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "data", "annotations", "result", "value", "type"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.lists(
        st.fixed_dictionaries({"id": st.integers(1, 9), "data": JSON, "annotations": st.lists(JSON, max_size=2)}) | JSON
    )
)
def test_no_json_makes_it_fail_in_any_other_way(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    path = tmp_path_factory.mktemp("any") / "export.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    for config in (None, LABEL_CONFIG):
        with contextlib.suppress(WardroundError):
            read_export(path, 1, config)
