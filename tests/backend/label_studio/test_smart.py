"""What smart tools say, in pixels: boxes however they are turned, points, strokes, and what is refused in words."""

import json
import math

import numpy as np
import pytest

from backend.label_studio import masks
from backend.label_studio.errors import (
    BadMask,
    BadPayload,
    LabelStudioError,
    MaskSizeMismatch,
    UnknownLabel,
    UnsupportedLabelConfig,
)
from backend.label_studio.label_config import parse_label_config
from backend.label_studio.payloads import parse_predict
from backend.label_studio.smart import drawn, gestures
from tests.backend.web import RECORDINGS

CONFIG = parse_label_config(
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image" smart="true">'
    '<Label value="Lesion"/><Label value="Organ"/><Label value="Ruler"/></RectangleLabels>'
    '<BrushLabels name="brush" toName="image"><Label value="Lesion"/></BrushLabels>'
    '<PolygonLabels name="polygon" toName="image"><Label value="Organ"/></PolygonLabels></View>'
)
HEIGHT, WIDTH = 40, 60


def region(kind="rectangle", labels=("Lesion",), changes=None, **value):
    name = f"{kind}labels"
    whole = {"id": "r1", "from_name": "box", "to_name": "image", "type": name, "value": value | {name: list(labels)}}
    return whole | (changes or {})


def done(*regions):
    return gestures({"result": list(regions)}, CONFIG)


def understood(one):
    return [
        gesture.place(HEIGHT, WIDTH) if gesture.kind == "keypoint" else gesture.mask(HEIGHT, WIDTH)
        for gesture in done(one)
    ]


def rectangle(**value):
    (gesture,) = done(region(**({"x": 25, "y": 25, "width": 50, "height": 50, "rotation": 0} | value)))
    return gesture.mask(HEIGHT, WIDTH)


@pytest.mark.parametrize("tool", ["keypoint", "rectangle"])
def test_what_label_studio_really_sent_is_read(tool):
    path = RECORDINGS / f"interactive_{tool}_predict.json"
    if not path.exists():
        pytest.skip("recorded requests: the folder shared/label-studio-requests is not beside the repository")
    request = parse_predict(json.loads(path.read_text())["body"])
    (gesture,) = gestures(request.context or {}, parse_label_config(request.label_config))
    assert (gesture.kind, gesture.label, gesture.positive) == (tool, "Lesion", True)
    assert request.drawn == []
    if tool == "keypoint":
        assert gesture.place(256, 256) == (65, 80)
    else:
        rows, columns = (np.flatnonzero(gesture.mask(256, 256).any(axis)) for axis in (1, 0))
        assert (rows[0], rows[-1], columns[0], columns[-1]) == (93, 120, 67, 114)


def test_a_box_covers_its_pixels():
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[10:30, 15:45] = True
    np.testing.assert_array_equal(rectangle(), expected)
    everything = rectangle(x=-10, y=-10, width=200, height=200)
    assert everything.all() and everything.shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("turn", [0, 90, 180, 270, 360, -90])
def test_a_box_turns_about_its_first_corner_in_pixels(turn):
    """A quarter turn clockwise of what goes right and down goes down and left."""
    found = np.argwhere(rectangle(x=50, y=50, width=10, height=20, rotation=turn))  # 6 px wide, 8 px high
    towards = {0: (1, 1), 90: (1, -1), 180: (-1, -1), 270: (-1, 1)}[turn % 360]
    sides = (8, 6) if turn % 180 == 0 else (6, 8)
    for axis, (at, side, sign) in enumerate(zip((20, 30), sides, towards, strict=True)):
        first = at if sign > 0 else at - side
        assert (found[:, axis].min(), found[:, axis].max()) == (first, first + side - 1)


def test_a_box_keeps_its_area_when_it_turns():
    sizes = [rectangle(x=40, y=40, width=20, height=20, rotation=turn).sum() for turn in range(0, 90, 15)]
    assert max(sizes) - min(sizes) < 0.15 * sizes[0]


@pytest.mark.parametrize("thin", [{"width": 0}, {"height": 0}, {"width": 0, "height": 0}, {"x": 100, "width": 0}])
def test_the_thinnest_box_still_means_a_pixel(thin):
    assert rectangle(**thin).any()


@pytest.mark.parametrize(("x", "y"), [(0, 0), (100, 100), (-5, 140), (99.999, 50)])
def test_a_point_is_a_pixel_of_the_image(x, y):
    (gesture,) = done(region("keypoint", x=x, y=y, width=0.2))
    row, column = gesture.place(HEIGHT, WIDTH)
    assert 0 <= row < HEIGHT and 0 <= column < WIDTH
    assert abs(row - y / 100 * HEIGHT) <= max(1, -y, y - 100) and abs(column - x / 100 * WIDTH) <= max(1, -x)


def test_a_stroke_is_its_mask_and_must_fit_the_image():
    painted = np.zeros((HEIGHT, WIDTH), bool)
    painted[3:9, 4:30] = True
    (gesture,) = done(region("brush", format="rle", rle=masks.encode(painted)))
    np.testing.assert_array_equal(gesture.mask(HEIGHT, WIDTH), painted)
    with pytest.raises(MaskSizeMismatch):
        gesture.mask(HEIGHT, WIDTH + 1)


def test_every_label_of_a_region_is_asked_for_and_the_regions_say_which():
    found = done(
        region("keypoint", ["Lesion", "Organ"], x=1, y=2),
        region("keypoint", ["Organ"], {"is_positive": False, "id": "r2"}, x=3, y=4),
    )
    assert [(one.label, one.positive, one.id) for one in found] == [
        ("Lesion", True, "r1"), ("Organ", True, "r1"), ("Organ", False, "r2"),
    ]  # fmt: skip


def test_nothing_done_is_nothing_asked():
    assert gestures({"result": []}, CONFIG) == gestures({}, CONFIG) == gestures({"result": None}, CONFIG) == []


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (
            region(labels=["Ruler"], x=1, y=1, width=1, height=1),
            UnknownLabel,
            "'Ruler'.*'Lesion', 'Organ'.*BrushLabels",
        ),
        (region(labels=[], x=1, y=1, width=1, height=1), BadPayload, "no label"),
        (region("ellipse", x=1, y=1), UnsupportedLabelConfig, "ellipselabels.*KeyPointLabels"),
        (region("keypoint", changes={"image_rotation": 90}, x=1, y=1), BadMask, "turn it back"),
        (region("keypoint", x="1", y=1), BadPayload, "value.x"),
        (region("keypoint", x=math.nan, y=1), BadPayload, "value.x"),
        (region("keypoint", x=True, y=1), BadPayload, "value.x"),
        (region("keypoint", x=1e300, y=1), BadPayload, "value.x"),
        (region(x=1, y=1, width=1), BadPayload, "value.height"),
        (region("brush", format="png"), BadMask, "brush code"),
        (region("keypoint", changes={"value": 3}), BadPayload, "value"),
        (3, BadPayload, "params.context.result"),
    ],
)
def test_what_cannot_be_understood_is_refused_in_words(wrong, error, words):
    with pytest.raises(error, match=words) as caught:
        understood(wrong)
    assert isinstance(caught.value, LabelStudioError) and 400 <= caught.value.http_status < 500


def test_what_is_drawn_comes_with_the_own_draft_first_and_the_newest_of_a_kind_before():
    task = {
        "predictions": [{"result": [{"id": "p"}], "created_at": "2026-03-01T09:00:00Z"}],
        "annotations": [
            {"result": [{"id": "old"}], "updated_at": "2026-03-01T09:00:00Z"},
            {"result": [{"id": "skipped"}], "updated_at": "2026-03-04T09:00:00Z", "was_cancelled": True},
            {"result": [{"id": "new"}, "nonsense"], "updated_at": "2026-03-02T09:00:00Z"},
        ],
        "drafts": [{"result": [{"id": "d"}], "updated_at": "2026-02-01T09:00:00Z"}, 7, {"result": None}],
    }
    assert [[one["id"] for one in regions] for regions in drawn(task)] == [["d"], ["new"], ["old"], ["p"]]
    assert drawn({}) == drawn({"drafts": None, "annotations": [3]}) == []
