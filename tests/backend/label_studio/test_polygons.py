"""Laws of polygons: what is drawn is what comes back, holes included, and no outline costs more than it may."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from backend.label_studio import polygons
from backend.label_studio.errors import BadMask

LAW = settings(deadline=None)  # the first mask of all waits for an import
MASKS = hnp.arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24)))


def drawn(points_of_all, shape):
    mask = np.zeros(shape, dtype=bool)
    for points in points_of_all:
        mask |= polygons.decode(points, *shape)
    return mask


def iou(one, other):
    return (one & other).sum() / max(1, (one | other).sum())


def disc(shape, centre, radius):
    y, x = np.indices(shape)
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


@LAW
@given(MASKS)
def test_a_mask_survives_within_the_stated_iou(mask):
    outlined = polygons.encode(mask)
    back = drawn(outlined, mask.shape)
    assert back.any() == mask.any()
    assert not mask.any() or iou(mask, back) >= polygons.MIN_IOU


@LAW
@given(MASKS)
def test_with_all_its_corners_a_mask_survives_exactly(mask):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polygons, "_TOLERANCES_PX", (0.0,))
        assert np.array_equal(drawn(polygons.encode(mask), mask.shape), mask)


@LAW
@given(MASKS)
def test_each_piece_is_one_polygon_that_label_studio_takes(mask):
    outlined = polygons.encode(mask)
    assert len(outlined) == ndimage.label(mask)[1]
    for points in outlined:
        assert len(points) >= 3
        assert all(len(point) == 2 and min(point) >= 0 and max(point) <= 100 for point in points)


def test_holes_stay_holes_and_islands_in_them_islands():
    shape = (200, 300)
    ring = disc(shape, (100, 150), 80) & ~disc(shape, (80, 130), 20) & ~disc(shape, (120, 180), 25)
    mask = ring | disc(shape, (120, 180), 10)
    outlined = polygons.encode(mask)
    back = drawn(outlined, shape)
    assert len(outlined) == 2
    assert not back[80, 130] and not back[120, 160] and back[120, 180]
    assert iou(mask, back) >= polygons.MIN_IOU
    assert iou(~mask, back == 0) >= polygons.MIN_IOU


@LAW
@given(MASKS)
def test_a_hole_turns_the_other_way_so_that_both_rules_of_filling_agree(mask):
    """The editor fills by winding; other programs that read an export count crossings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polygons, "_TOLERANCES_PX", (0.0,))
        outlined = polygons.encode(mask)
    around = sum(
        (windings(in_pixels(points, mask.shape), mask.shape) for points in outlined), np.zeros(mask.shape, int)
    )
    assert np.array_equal(around, mask.astype(int))


def in_pixels(points, shape):
    return np.array(points) * (shape[1] / 100, shape[0] / 100)


def windings(corners, shape):
    """How often an outline goes around each pixel's centre, one edge after the other."""
    found = np.zeros(shape, dtype=int)
    y, x = np.indices(shape) + 0.5
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        side = (x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)
        found += ((y0 <= y) & (y < y1) & (side > 0)).astype(int) - ((y1 <= y) & (y < y0) & (side < 0)).astype(int)
    return found


@LAW
@given(
    st.lists(st.tuples(st.integers(-30, 130), st.integers(-30, 130)), min_size=3, max_size=9),
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
)
def test_any_outline_is_filled_by_its_winding_and_cut_at_the_rim(points, shape):
    # Off the centres of pixels, where rounding decides
    points = [(x + 0.0137, y + 0.0271) for x, y in points]
    assert np.array_equal(polygons.decode(points, *shape), windings(in_pixels(points, shape), shape) != 0)


def test_a_smooth_outline_has_few_points():
    shape = (512, 512)
    assert sum(map(len, polygons.encode(disc(shape, (256, 256), 120)))) <= 80


def test_an_empty_mask_has_no_polygon():
    assert polygons.encode(np.zeros((5, 7), dtype=bool)) == []


@pytest.mark.parametrize(
    "points",
    [
        None,
        "abc",
        [],
        [[1, 2], [3, 4]],
        [[1, 2], [3, 4], [5]],
        [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        [[1, 2], [3, 4], [5, float("nan")]],
        [[1, 2], [3, 4], [5, 10**400]],
        [[1, 2], [3, 4], [5, "x"]],
        [[0, 0], [100, 0], [100, 100]] * 40_000,
    ],
)
def test_what_is_no_outline_is_refused(points):
    with pytest.raises(BadMask, match=r"polygon.*draw it again"):
        polygons.decode(points, 10, 10)


def test_an_outline_that_would_take_a_minute_to_fill_is_refused():
    zigzag = [[x % 100, 100 * (x % 2)] for x in range(3000)]
    with pytest.raises(BadMask, match="crosses more than"):
        polygons.decode(zigzag, 4000, 10)
