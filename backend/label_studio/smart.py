"""Smart tools: the box, points or strokes with which a person asks for a suggestion, and what is drawn already.

Label Studio sends each as an ordinary region in ``params.context.result``, together with every other one of the same
control and label that no suggestion has replaced yet. Points and boxes are in percent of the image; a stroke is a brush
region with its code. Only points say ``is_positive``; where nothing is said, something is meant to be there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backend.label_studio import masks, polygons
from backend.label_studio.errors import BadMask, BadPayload, UnknownLabel, UnsupportedLabelConfig
from backend.label_studio.fields import a_list, an_object, objects
from backend.label_studio.label_config import LabelConfig

Kind = Literal["rectangle", "keypoint", "brush"]
Region = Mapping[str, Any]

_FAR = 1e6  # of a percentage or an angle: further away nobody draws
_KINDS: dict[str, Kind] = {"rectanglelabels": "rectangle", "keypointlabels": "keypoint", "brushlabels": "brush"}


@dataclass(frozen=True)
class Gesture:
    """One box, point or stroke for one label; ``positive`` is False where it says that the label is not there."""

    id: str
    kind: Kind
    label: str
    positive: bool
    value: Mapping[str, Any]

    def place(self, height: int, width: int) -> tuple[int, int]:
        """Row and column of a point, in pixels; one outside the image counts as on its rim. Raises BadPayload."""
        row, column = (_percent(self.value, name) / 100 * side for name, side in (("y", height), ("x", width)))
        return int(np.clip(row, 0, height - 1)), int(np.clip(column, 0, width - 1))

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """What a box or a stroke covers, (height, width) bool. Raises BadPayload, BadMask, MaskSizeMismatch."""
        if self.kind == "brush":
            if self.value.get("format") != "rle":
                raise BadMask("the stroke of the smart tool holds no brush code; paint it again")
            return masks.decode(a_list(self.value.get("rle"), "value.rle"), height, width)
        corners = self._corners(height, width)
        covered = polygons.decode((corners * (100 / np.array([width, height]))).tolist(), height, width)
        if not covered.any():  # a box so thin that it lies between the centres of pixels
            column, row = corners.mean(axis=0)
            covered[int(np.clip(row, 0, height - 1)), int(np.clip(column, 0, width - 1))] = True
        return covered

    def _corners(self, height: int, width: int) -> NDArray[np.float64]:
        """Corners (4, 2) of a box as x, y in pixels. It is turned about its first corner, clockwise as it is seen."""
        x, y, across, down = (_percent(self.value, name) / 100 for name in ("x", "y", "width", "height"))
        turn = math.radians(_percent(self.value, "rotation", 0.0))
        along = across * width * np.array([math.cos(turn), math.sin(turn)])
        aside = down * height * np.array([-math.sin(turn), math.cos(turn)])
        return np.array([x * width, y * height]) + np.array([0 * along, along, along + aside, aside])


def gestures(context: Mapping[str, Any], label_config: LabelConfig) -> list[Gesture]:
    """What a person did, one gesture for each label of each region.

    Raises BadPayload, UnsupportedLabelConfig for a control that is not a box, point or brush with labels, UnknownLabel
    where it has a label that no mask can have, and BadMask where the image is turned.
    """
    done = objects(context.get("result") or [], "params.context.result")
    return [gesture for region in done for gesture in _of_region(region, label_config)]


def drawn(task: Mapping[str, Any]) -> list[list[Region]]:
    """What is drawn on a task as Label Studio sends it: the person's own drafts, else annotations, else predictions.

    One list of regions each, the newest of its kind first.
    """
    found: list[list[Region]] = []
    for name in ("drafts", "annotations", "predictions"):
        answers = task.get(name)
        whole = [one for one in answers if isinstance(one, Mapping)] if isinstance(answers, list) else []
        valid = [one for one in whole if isinstance(one.get("result"), list) and one.get("was_cancelled") is not True]
        newest = sorted(valid, key=lambda one: str(one.get("updated_at") or one.get("created_at") or ""), reverse=True)
        found += [[region for region in one["result"] if isinstance(region, Mapping)] for one in newest]
    return found


def _of_region(region: Region, label_config: LabelConfig) -> list[Gesture]:
    kind, control = _KINDS.get(str(region.get("type"))), str(region.get("from_name"))
    if kind is None:
        raise UnsupportedLabelConfig(
            f'the smart tool {control!r} draws {region.get("type")!r}, which says nothing here; set smart="true" on '
            "RectangleLabels, KeyPointLabels or BrushLabels, which name a label"
        )
    if region.get("image_rotation"):
        raise BadMask("smart tools do not work on a turned image; turn it back and try again")
    value = an_object(region.get("value"), "value")
    labels = a_list(value.get(str(region["type"])) or value.get("labels") or [], "value.labels")
    if not labels:
        raise BadPayload(f"a region of the smart tool {control!r} has no label; choose one before drawing")
    for label in labels:
        if label not in label_config.labels:
            raise UnknownLabel(
                f"the smart tool {control!r} has the label {label!r}, but masks have {list(label_config.labels)}; give "
                "the smart control the labels of a BrushLabels or PolygonLabels"
            )
    positive = region.get("is_positive") is not False
    return [Gesture(str(region.get("id")), kind, label, positive, value) for label in labels]


def _percent(value: Mapping[str, Any], name: str, default: float | None = None) -> float:
    number = value.get(name, default)
    if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) <= _FAR:
        raise BadPayload(f"value.{name} of a smart tool's region is a number near 0 to 100, not {number!r}")
    return float(number)
