"""The picture of a forecast: well-formed, inside its frame, and true to the figures."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from evidence.figure import forecast_svg
from evidence.forecast import Curve, fit

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("dice", [[0.5, 0.6, 0.66], [0.8, 0.8, 0.8], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
def test_everything_lies_within_the_frame(dice: list[float]) -> None:
    curve = Curve([10, 20, 40], dice)
    text = forecast_svg(curve, fit(curve), 0.9)
    root = ElementTree.fromstring(text)  # noqa: S314 - our own
    assert len(root.findall(f"{SVG}circle")) == 3
    assert "0.9" in root.findtext(f"{SVG}title", "")
    for points in (one.get("points", "") for one in root.iter() if one.tag in (f"{SVG}polygon", f"{SVG}polyline")):
        for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", points):
            assert 59 <= float(x) <= 621 and 19 <= float(y) <= 351


def test_a_better_round_is_drawn_higher() -> None:
    curve = Curve([10, 20, 40], [0.5, 0.6, 0.7])
    root = ElementTree.fromstring(forecast_svg(curve, fit(curve), 0.9))  # noqa: S314
    heights = [float(one.get("cy", "")) for one in root.findall(f"{SVG}circle")]
    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) == 3
