"""Label Studio's polygons: (H, W) bool in the image frame, to and from points in percent of the image.

A pixel belongs to a polygon when its centre lies inside by the non-zero winding rule, which is how the editor fills
one. Label Studio's polygons have no holes: a hole is cut in by a bridge, a line walked there and back, around which
the hole turns the other way; the bridge encloses nothing itself.

Contours run along the edges between pixels, so with all their corners they give the mask back exactly. That is more
corners than anybody wants to drag, so they are thinned as far as each piece stays the same within `MIN_IOU`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.label_studio.errors import BadMask

MIN_IOU = 0.98

_TOLERANCES_PX = (1.25, 0.7, 0.4, 0.0)
_DECIMALS = 5  # of a percentage: a thousandth of a pixel in an image of 10 000
_MAX_POINTS = 100_000
_MAX_CROSSINGS = 2_000_000  # of its edges with rows of pixels: what filling a polygon may cost
_REDRAW = "delete the region and draw it again"

Corners = NDArray[np.float64]


def encode(mask: NDArray[np.bool_]) -> list[list[list[float]]]:
    """The polygons of a mask, one per piece (pixels joined by their edges), holes cut in.

    mask: (H, W) bool, image frame. Returns for each piece its points [x, y] in percent of width and height, closed by
    implication. Each piece is given back by `decode` with an IoU of at least `MIN_IOU`, and so is the whole mask.
    Raises BadMask.
    """
    from scipy import ndimage

    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise BadMask(f"a mask must be bool of shape (H, W), not {mask.dtype} {mask.shape}")
    pieces, _ = ndimage.label(mask)
    polygons = []
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        origin = np.array([box[1].start, box[0].start])
        polygons.append(_thinnest(pieces[box] == number, origin, np.array([mask.shape[1], mask.shape[0]])))
    return polygons


def decode(points: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Fill one polygon given in percent. Returns (height, width) bool, image frame. Raises BadMask.

    What lies outside the image is cut off.
    """
    corners = _read_points(points) * (width / 100, height / 100)
    size = (width, height)
    left, top = np.clip(_first_centre(corners.min(axis=0)), 0, size)
    right, bottom = np.clip(_first_centre(corners.max(axis=0)), 0, size)
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = _filled(corners - (left, top), int(bottom - top), int(right - left))
    return mask


def _thinnest(piece: NDArray[np.bool_], origin: NDArray[np.int64], size: NDArray[np.int64]) -> list[list[float]]:
    """One piece, (h, w) bool in its bounding box, as points in percent of an image of `size` (width, height)."""
    rings = _rings(piece)
    for tolerance_px in _TOLERANCES_PX:
        whole = _bridged([_thinned(ring, tolerance_px) for ring in rings]) + origin
        points = np.round(whole * (100 / size), _DECIMALS)
        drawn = _filled(points * (size / 100) - origin, *piece.shape)
        if (piece & drawn).sum() >= MIN_IOU * (piece | drawn).sum():
            break
    return points.tolist()


def _read_points(points: Any) -> Corners:
    try:
        corners = np.array(points, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadMask(f"a polygon is a list of points [x, y] in percent ({error}); {_REDRAW}") from error
    if corners.ndim != 2 or corners.shape[1] != 2 or not np.isfinite(corners).all():
        raise BadMask(f"a polygon is a list of points [x, y] in percent; {_REDRAW}")
    if not 3 <= len(corners) <= _MAX_POINTS:
        raise BadMask(f"a polygon has 3 to {_MAX_POINTS} points, not {len(corners)}; {_REDRAW}")
    return np.clip(corners, -1e6, 1e6)


# ------------------------------------------------------------------------------------------------------------ filling


def _first_centre(at: Corners) -> NDArray[np.int64]:
    """The first pixel whose centre is not before a coordinate in pixels."""
    return np.ceil(at - 0.5).astype(np.int64)


def _filled(corners: Corners, height: int, width: int) -> NDArray[np.bool_]:
    """Non-zero winding around corners (n, 2), x and y in pixels, at the centres of (height, width) pixels."""
    following = np.roll(corners, -1, axis=0)
    downwards = corners[:, 1] <= following[:, 1]
    # Each edge from its upper end: one that is walked there and back then crosses each row in exactly one place.
    upper = np.where(downwards[:, None], corners, following)
    lower = np.where(downwards[:, None], following, corners)
    first, end = (np.clip(_first_centre(ends[:, 1]), 0, height) for ends in (upper, lower))
    counts = end - first
    if counts.sum() > _MAX_CROSSINGS:
        raise BadMask(f"a polygon crosses more than {_MAX_CROSSINGS} rows of pixels; {_REDRAW}")
    edge = np.repeat(np.arange(len(corners)), counts)
    rows = np.repeat(end - np.cumsum(counts), counts) + np.arange(counts.sum())
    way = lower[edge] - upper[edge]
    crossing = upper[edge, 0] + (rows + 0.5 - upper[edge, 1]) * (way[:, 0] / way[:, 1])
    winding = np.zeros((height, width + 1), dtype=np.int32)
    np.add.at(winding, (rows, np.clip(_first_centre(crossing), 0, width)), np.where(downwards[edge], 1, -1))
    np.cumsum(winding, axis=1, out=winding)
    return winding[:, :width] != 0


# ------------------------------------------------------------------------------------------------------------ tracing


def _rings(piece: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """The contours of one piece, corners (n, 2), x and y in pixels: the outer one, then its holes the other way round.

    Every corner has one neighbour along its row and one along its column, and sorted along either they pair up.
    """
    corners, along_column = _corners(piece)
    step = along_column.tolist()
    seen = [False] * len(step)
    rings: list[NDArray[np.int64]] = []
    for start in range(0, len(step), 2):
        ring, at = [], start
        while not seen[at]:
            seen[at] = seen[at ^ 1] = True
            ring += [at, at ^ 1]
            at = step[at ^ 1]
        if ring:
            rings.append(corners[ring[::-1] if rings else ring])
    return rings


def _corners(piece: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Corners (n, 2) row by row, so that 2k and 2k + 1 are joined along it, and whom each is joined to along columns.

    Where two pixels meet in one corner only there are two corners, and the pixels are not joined there.
    """
    padded = np.pad(piece, 1)
    above_left, above, left, here = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    touching = (above_left == here) & (above == left) & (above != here)
    y, x = np.nonzero((above_left ^ above ^ left ^ here) | touching)
    rows, columns = (np.repeat(at, np.where(touching[y, x], 2, 1)) for at in (y, x))
    # Of two in one place the first ends a line from the left. It turns up, around the pixel above left, or else down.
    is_second = np.zeros(len(rows), dtype=bool)
    is_second[1:] = (rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1])
    goes_down = is_second == above_left[rows, columns]
    order = np.lexsort((goes_down, rows, columns))
    joined = np.empty(len(rows), dtype=np.intp)
    joined[order] = order[np.arange(len(order)) ^ 1]
    return np.stack([columns, rows], axis=1), joined


# ----------------------------------------------------------------------------------------------- thinning and bridging


def _thinned(ring: NDArray[np.int64], tolerance_px: float) -> NDArray[np.int64]:
    """A closed ring without the corners that lie within the tolerance of a line past them.

    Douglas and Peucker 1973, between the first corner and the one farthest from it.
    """
    closed = np.concatenate([ring, ring[:1]]).astype(np.float64)
    far = int(np.argmax(np.hypot(*(closed - closed[0]).T)))
    keep = {0, far}
    spans = [(0, far), (far, len(ring))]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        distances = _distances(closed[first + 1 : last], closed[first], closed[last])
        middle = first + 1 + int(np.argmax(distances))
        if distances.max() > tolerance_px:
            keep.add(middle)
            spans += [(first, middle), (middle, last)]
    return ring[sorted(keep)] if len(keep) > 2 else ring


def _distances(points: Corners, start: Corners, end: Corners) -> NDArray[np.float64]:
    """How far points (n, 2) are from the line through two others, in pixels."""
    along, beside = end - start, points - start
    return np.abs(beside[:, 0] * along[1] - beside[:, 1] * along[0]) / np.hypot(*along)


def _bridged(rings: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """One ring of an outer one and its holes: from its corner nearest to a hole it goes there, around it and back."""
    from scipy.spatial import cKDTree

    whole = rings[0]
    for hole in rings[1:]:
        distances, nearest = cKDTree(whole).query(hole)
        there = int(np.argmin(distances))
        here = int(nearest[there])
        around = np.roll(hole, -there, axis=0)
        whole = np.concatenate([whole[: here + 1], around, around[:1], whole[here:]])
    return whole
