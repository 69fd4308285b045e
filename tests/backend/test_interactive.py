"""Smart tools: what a person is shown is what the serving version sees where the person points, and is never stored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backend import interactive
from backend.errors import NotConnected
from backend.label_studio import masks
from backend.label_studio.errors import BadPayload, UnknownLabel
from backend.label_studio.payloads import PredictRequest, parse_label_config, regions
from backend.label_studio.suggesting import Asked, crop_of, suggested, within
from backend.recent import Recent
from backend.serving import Served
from backend.store import predictions as rows
from backend.store import projects
from backend.tables import Prediction
from model import ModelConfig, Segmenter
from tests.backend.conftest import World
from tests.backend.fakes import SIDE, picture, true_mask
from tests.backend.web import BASIC, add_version, predict_body, serve

# One database is enough: what differs between them is tested below this door.
pytestmark = pytest.mark.parametrize("store", ["sqlite"], indirect=True)

CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<KeyPointLabels name="point" toName="image" smart="true"><Label value="Lesion"/><Label value="Disc"/>'
    '<Label value="Ruler"/></KeyPointLabels>'
    '<RectangleLabels name="box" toName="image" smart="true"><Label value="Lesion"/></RectangleLabels>'
    '<BrushLabels name="brush" toName="image" smart="true"><Label value="Lesion"/></BrushLabels>'
    '<PolygonLabels name="polygon" toName="image"><Label value="Disc"/></PolygonLabels></View>'
)
PROMPT = "a bright disc"


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    """`tiny` as it comes: it knows a bright disc when it sees one."""
    return Segmenter.create(ModelConfig(), seed=0)


class Tools:
    """A connected project with two tasks, a serving version, and a person at its smart tools."""

    def __init__(self, world: World, segmenter: Segmenter) -> None:
        self.world = world
        for task_id in (1, 2):
            world.label_studio.add_task(task_id)
        world.pull()
        with world.ctx.store.begin() as s:
            projects.change(s, 1, label_config=CONFIG, prompts={"Lesion": PROMPT, "Disc": PROMPT})
        self.served = Served(add_version(world), segmenter)
        self.loaded: list[int] = []
        world.ctx.serving.load = self._load  # type: ignore[method-assign]

    def _load(self, version: Any) -> Served:
        self.loaded.append(version.id)
        return self.served

    def ask(self, *done: dict[str, Any], task_id: int = 1, drawn: Sequence[Any] = ()) -> dict[str, Any]:
        tasks = [self.world.label_studio.task_rows[task_id]]
        request = PredictRequest(1, CONFIG, tasks, {"result": list(done)}, list(drawn))
        (result,) = json.loads(interactive.answer(self.world.ctx, request))["results"]
        return dict(result)

    def mask(self, *done: dict[str, Any], label: str = "Lesion", **how: Any) -> np.ndarray:
        found = masks.masks_of(self.ask(*done, **how)["result"], parse_label_config(CONFIG), (SIDE, SIDE))
        return found.get(label, np.zeros((SIDE, SIDE), bool))

    def seen(self, task_id: int = 1) -> np.ndarray:
        return self.served.segmenter.segment(rgb(task_id), PROMPT, n_draws=0).probability


@pytest.fixture
def tools(world: World, segmenter: Segmenter) -> Tools:
    return Tools(world, segmenter)


def rgb(task_id: int) -> np.ndarray:
    return np.stack([picture(task_id)[0]] * 3, axis=-1)


def region(kind: str, name: str, value: dict[str, Any], labels: Sequence[str] = ("Lesion",), **changed: Any) -> Any:
    value = value | {f"{kind}labels": list(labels)}
    whole = {"id": "r1", "from_name": name, "to_name": "image", "type": f"{kind}labels", "value": value}
    return whole | changed


def point(place: Any, labels: Sequence[str] = ("Lesion",), **changed: Any) -> Any:
    x, y = ((at + 0.5) / SIDE * 100 for at in (place[1], place[0]))
    return region("keypoint", "point", {"x": x, "y": y, "width": 0.3}, labels, **({"is_positive": True} | changed))


def box(top: int, left: int, bottom: int, right: int) -> Any:
    sides = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    return region("rectangle", "box", {name: side / SIDE * 100 for name, side in sides.items()} | {"rotation": 0})


def stroke(painted: np.ndarray, **changed: Any) -> Any:
    return region("brush", "brush", {"format": "rle", "rle": masks.encode(painted)}, **changed)


def centre(mask: np.ndarray) -> tuple[int, int]:
    row, column = np.argwhere(mask).mean(axis=0)
    return int(row), int(column)


def around(mask: np.ndarray, margin: int = 3) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    low, high = (max(0, int(side.min()) - margin) for side in (rows, columns)), (rows, columns)
    top, left = low
    bottom, right = (min(SIDE, int(side.max()) + 1 + margin) for side in high)
    return top, left, bottom, right


def test_a_point_suggests_what_the_model_sees_under_it(tools: Tools) -> None:
    place = centre(true_mask(1))
    found = tools.mask(point(place))
    np.testing.assert_array_equal(found, suggested(Asked(points=[place]), tools.seen()))
    assert found[place]
    assert 2 * (found & true_mask(1)).sum() / (found.sum() + true_mask(1).sum()) > 0.8


def test_a_box_suggests_what_the_model_sees_in_it_from_nearer(tools: Tools) -> None:
    top, left, bottom, right = around(true_mask(1))
    inside = np.zeros((SIDE, SIDE), bool)
    inside[top:bottom, left:right] = True
    found = tools.mask(box(top, left, bottom, right))
    crop = crop_of(inside)
    pasted = np.zeros((SIDE, SIDE), np.float32)
    pasted[crop] = tools.served.segmenter.segment(np.ascontiguousarray(rgb(1)[crop]), PROMPT, 0).probability
    np.testing.assert_array_equal(found, within(np.where(inside, pasted, 0), inside))
    assert not (found & ~inside).any()
    assert (found & true_mask(1)).sum() / (found | true_mask(1)).sum() > 0.6


def test_a_stroke_grows_to_what_it_touches(tools: Tools) -> None:
    row, column = centre(true_mask(1))
    painted = np.zeros((SIDE, SIDE), bool)
    painted[row, : column + 1] = True
    found = tools.mask(stroke(painted))
    assert found[painted].all()
    assert found.sum() > painted.sum() + 20
    np.testing.assert_array_equal(found, suggested(Asked(strokes=[painted]), tools.seen()))
    assert not (tools.mask(stroke(painted, id="no", is_positive=False), stroke(true_mask(1))) & painted).any()


def test_a_point_that_rules_out_takes_the_piece_from_what_is_drawn(tools: Tools) -> None:
    mine, other = np.zeros((SIDE, SIDE), bool), np.zeros((SIDE, SIDE), bool)
    mine[2:6, 2:6] = other[30:40, 30:40] = True
    config = parse_label_config(CONFIG)
    draft, annotation = regions(config, {"Lesion": mine | other}, {}), regions(config, {"Lesion": mine}, {})
    out = point((35, 35), is_positive=False)
    np.testing.assert_array_equal(tools.mask(out, drawn=[draft, annotation]), mine)
    assert not tools.mask(point((3, 3), is_positive=False), drawn=[annotation, draft]).any()
    # Somebody else's broken region, or one of another label, is not what was there.
    broken = [draft[0] | {"original_width": 7}]
    np.testing.assert_array_equal(tools.mask(out, drawn=[broken, [], draft]), mine)
    assert not tools.mask(point(centre(true_mask(1)), is_positive=False)).any()


def test_a_label_of_the_region_decides_the_control_that_draws(tools: Tools) -> None:
    place = centre(true_mask(1))
    for labels in (["Disc"], ["Lesion"], ["Disc", "Lesion"]):
        found = tools.ask(point(place, labels))["result"]
        kinds = {"Disc": "polygonlabels", "Lesion": "brushlabels"}
        assert {one["type"] for one in found} == {kinds[label] for label in labels}
    both = tools.ask(point(place, ["Disc"]), point(place, id="r2"))["result"]
    assert {one["type"] for one in both} == {"brushlabels", "polygonlabels"}


def test_suggestions_have_ids_that_no_region_has_and_nothing_is_stored(tools: Tools) -> None:
    place = centre(true_mask(1))
    (first,) = tools.ask(point(place))["result"]
    (second,) = tools.ask(point(place, id="r2"))["result"]
    (again,) = tools.ask(point(place))["result"]
    pre_annotation = regions(parse_label_config(CONFIG), {"Lesion": tools.mask(point(place))}, {})
    assert len({first["id"], second["id"], pre_annotation[0]["id"]}) == 3
    assert first == again
    assert first["value"] == second["value"]
    with tools.world.ctx.store.read() as s:
        assert not s.query(Prediction).count()


def test_a_second_click_asks_neither_the_model_nor_label_studio(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tools.ask(point(centre(true_mask(1))))
    side = tools.ask(box(5, 5, 30, 30))
    tools.world.label_studio.fetched.clear()
    network = tools.served.segmenter.network
    monkeypatch.setattr(network, "answer", lambda *_: pytest.fail("the model was asked"))
    monkeypatch.setattr(network, "look", lambda *_: pytest.fail("the model looked"))
    monkeypatch.setattr(tools.world.ctx.files, "image", lambda _: pytest.fail("the image was decoded"))
    assert tools.ask(point(centre(true_mask(1)))) == first
    assert tools.ask(box(5, 5, 30, 30)) == side
    tools.ask(point((1, 1), is_positive=False))
    assert tools.world.label_studio.fetched == []


def test_another_label_of_the_same_image_looks_at_it_once(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    with tools.world.ctx.store.begin() as s:
        projects.change(s, 1, prompts={"Lesion": PROMPT, "Disc": "a dark ring"})
    looked: list[int] = []
    look = tools.served.segmenter.network.look

    def watched(images: Any) -> Any:
        looked.append(len(images))
        return look(images)

    monkeypatch.setattr(tools.served.segmenter.network, "look", watched)
    place = centre(true_mask(1))
    tools.ask(point(place, ["Lesion"]))
    found = tools.mask(point(place, ["Disc"]), label="Disc")
    assert len(looked) == 1
    tools.ask(point(place), task_id=2)
    assert len(looked) == 2
    asked = tools.served.segmenter.segment(rgb(1), "a dark ring", n_draws=0).probability
    expected, other = (suggested(Asked(points=[place]), seen) for seen in (asked, tools.seen()))
    assert (found ^ expected).sum() < 0.02 * expected.sum() < (other ^ expected).sum()  # polygons round the corners


def test_answers_do_not_depend_on_what_is_remembered(tools: Tools) -> None:
    place = centre(true_mask(2))
    asked = [((point(place),), 2), ((box(4, 4, 40, 40),), 1), ((point(centre(true_mask(1))),), 1)]
    plenty = [tools.ask(*done, task_id=task_id) for done, task_id in asked * 2]
    tools.served = replace(tools.served, recent=Recent(0))
    nothing = [tools.ask(*done, task_id=task_id) for done, task_id in asked * 2]
    assert plenty == nothing
    assert plenty[:3] == plenty[3:]


def test_before_the_first_version_and_for_unknown_tasks_the_answer_is_empty(tools: Tools) -> None:
    tools.world.label_studio.add_task(7)
    empty = tools.ask(point((3, 3)), task_id=7)
    assert empty["result"] == []
    assert tools.ask()["result"] == []
    with tools.world.ctx.store.begin() as s:
        rows.serve(s, 1, -1)
    assert tools.ask(point((3, 3))) == empty
    assert tools.loaded == []


def test_a_broken_image_and_a_prompt_too_long_get_no_suggestion(tools: Tools) -> None:
    fake = tools.world.label_studio
    fake.add_task(8, content=b"\xff\xd8\xff no picture")
    fake.add_task(9)
    fake.task_rows[9] = replace(fake.task_rows[9], data=fake.task_rows[9].data | {"prompt": "very " * 90 + "long"})
    tools.world.pull()
    for task_id in (8, 9):
        assert tools.ask(point((3, 3)), task_id=task_id)["result"] == []


def test_what_cannot_be_answered_is_refused_in_words(tools: Tools) -> None:
    with pytest.raises(UnknownLabel, match="Ruler"):
        tools.ask(point((3, 3), ["Ruler"]))
    tasks = [tools.world.label_studio.task_rows[task_id] for task_id in (1, 2)]
    with pytest.raises(BadPayload, match="one task"):
        interactive.answer(tools.world.ctx, PredictRequest(1, CONFIG, tasks, {"result": []}))
    with pytest.raises(NotConnected):
        interactive.answer(tools.world.ctx, PredictRequest(44, CONFIG, tasks[:1], {"result": []}))


def test_the_door_of_predictions_knows_a_smart_tool_by_its_context(tools: Tools) -> None:
    place = centre(true_mask(1))
    body = predict_body(tools.world, 1) | {"label_config": CONFIG}
    body["params"] = {"context": {"result": [point(place)]}}
    drawn = regions(parse_label_config(CONFIG), {"Lesion": true_mask(2)}, {})
    body["tasks"][0] |= {"drafts": [{"result": drawn, "updated_at": "2026-03-01T08:00:00Z"}], "annotations": []}
    answer = serve(tools.world).post("/predict", json=body, auth=BASIC)
    assert answer.status_code == 200
    assert answer.json()["results"] == [tools.ask(point(place))]
    away = point(centre(true_mask(2)), is_positive=False)
    body["params"] = {"context": {"result": [away]}}
    assert serve(tools.world).post("/predict", json=body, auth=BASIC).json()["results"][0]["result"] == []
    body["params"] = {"context": {"result": [point(place, ["Ruler"])]}}
    refused = serve(tools.world).post("/predict", json=body, auth=BASIC)
    assert refused.status_code == 422 and "Ruler" in refused.json()["detail"]
