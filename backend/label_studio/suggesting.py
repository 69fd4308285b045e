"""What boxes, points and strokes make of a map of probabilities. Pure: arrays in, a mask out.

Frame: everything here is (H, W) of one image, places are (row, column) in whole pixels. Pieces are pixels joined by
their edges. Order counts nowhere: what is asked for is joined first, then what is ruled out is taken away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from backend.label_studio.cleaning import THRESHOLD, Mask, cleaned

Probability = NDArray[np.float32]
Place = tuple[int, int]

FLOOR = 0.05
"""Below this nothing is seen, however much somebody points at it."""
REACH_SHARE = 0.02
"""How far from a point a piece may lie and still be meant, as a share of the image's diagonal."""
POINT_SHARE = 0.9
BOX_SHARE = 0.5
"""What share of the probability at a point, or of the highest in a box, still belongs to the same thing."""
SPECK_SHARE = 0.01
"""Pieces and holes smaller than this share of all that is found in a box are noise."""
MARGIN = 0.75
"""What a crop shows around a box, on each side, as a share of the box's side. Measured with `tiny` after 60 labels: of
0, 0.1, 0.25, 0.5, 0.75, 1 and 1.5 the best for polyps, and nothing to choose for nuclei; a crop without any margin is
worse than no crop."""
_N_SITES = 64


@dataclass(frozen=True)
class Asked:
    """What a person did for one label: `found` is what boxes hold (`within`), strokes are what was painted.

    Boxes and strokes that rule something out are both `not_strokes`.
    """

    found: Sequence[Mask] = ()
    points: Sequence[Place] = ()
    strokes: Sequence[Mask] = ()
    not_points: Sequence[Place] = ()
    not_strokes: Sequence[Mask] = ()

    @property
    def names_something(self) -> bool:
        """Whether it says where something is, and not only where nothing is."""
        return bool(self.found or self.points or self.strokes)


def suggested(asked: Asked, probability: Probability, there: Mask | None = None) -> Mask:
    """What is meant by all that was done, (H, W) bool.

    Where something is named, the pieces named, else what was `there` already (None: where the model sees anything).
    Of the probabilities nothing is read where only boxes name something, or nothing is named and something was there.
    Points and strokes that rule out are in no answer: a point takes the piece it lies on, or its half of a piece that
    a person also pointed at; a stroke takes itself. A painted stroke is in every answer but for what is ruled out.
    """
    if asked.names_something:
        pointed = [under(probability, place) for place in asked.points]
        mask: Mask = np.logical_or.reduce([*asked.found, *pointed, *(along(probability, one) for one in asked.strokes)])
    else:
        mask = probability > THRESHOLD if there is None else there
    mask = _without(mask, asked.not_points, _sites(asked))
    for stroke in asked.strokes:
        mask |= stroke
    for stroke in asked.not_strokes:
        mask &= ~stroke
    for place in asked.not_points:
        mask[place] = False
    return mask


def under(probability: Probability, place: Place) -> Mask:
    """The piece a point lies on: at the threshold, or of a point below it as far down as the point asks for.

    Where the point sees nothing (`FLOOR`), the nearest piece at the threshold within reach; else nothing.
    """
    seen = float(probability[place])
    if seen >= FLOOR:
        return _piece(probability >= _level(seen, POINT_SHARE), place)
    solid = probability > THRESHOLD
    nearest = _nearest(solid, place)
    return np.zeros_like(solid) if nearest is None else _piece(solid, nearest)


def along(probability: Probability, stroke: Mask) -> Mask:
    """A stroke and every piece it touches: at the threshold, or if it lies below as far down as it asks for."""
    best = float(probability[stroke].max(initial=0.0))
    if best < FLOOR:
        return stroke.copy()
    pieces, n = ndimage.label(probability >= _level(best, POINT_SHARE))
    touched = np.zeros(n + 1, np.bool_)
    touched[pieces[stroke]] = True
    touched[0] = False
    grown: Mask = touched[pieces] | stroke
    return grown


def within(probability: Probability, box: Mask) -> Mask:
    """What a box holds, cleaned: where the probability is at the threshold, or near the highest in a faint box."""
    best = float(probability[box].max(initial=0.0))
    if best < FLOOR:
        return np.zeros_like(box)
    window = crop_of(box, 0.0)
    inside = (probability[window] >= _level(best, BOX_SHARE)) & box[window]
    mask = np.zeros_like(box)
    mask[window] = cleaned(inside, math.ceil(SPECK_SHARE * int(inside.sum())))
    return mask


def crop_of(box: Mask, margin: float = MARGIN) -> tuple[slice, slice]:
    """The rectangle of the image to look at for a box: the box and what is around it, as far as there is image."""
    rows, columns = (_extent(np.atleast_1d(box.any(axis=1 - axis)), margin) for axis in (0, 1))
    return rows, columns


def _level(best: float, share: float) -> float:
    """From what probability on a pixel belongs to something whose best is given."""
    return THRESHOLD if best >= THRESHOLD else share * best


def _extent(inside: Mask, margin: float) -> slice:
    """What is True along one axis, and the margin on both sides."""
    first, last = (int(end) for end in np.flatnonzero(inside)[[0, -1]])
    aside = round(margin * (last + 1 - first))
    return slice(max(0, first - aside), min(len(inside), last + 1 + aside))


def _piece(mask: Mask, place: Place) -> Mask:
    pieces, _ = ndimage.label(mask)
    piece: Mask = (pieces == pieces[place]) & mask
    return piece


def _nearest(mask: Mask, place: Place) -> Place | None:
    """The pixel of the mask nearest to a place and within reach of it; of several the first in reading order."""
    reach = REACH_SHARE * math.hypot(*mask.shape)
    first = [max(0, int(at - reach)) for at in place]
    window = mask[first[0] : int(place[0] + reach) + 1, first[1] : int(place[1] + reach) + 1]
    found = np.argwhere(window) + first
    if not len(found):
        return None
    distances = np.hypot(found[:, 0] - place[0], found[:, 1] - place[1])
    best = int(distances.argmin())
    return (int(found[best, 0]), int(found[best, 1])) if distances[best] <= reach else None


def _sites(asked: Asked) -> NDArray[np.intp]:
    """Places (n, 2) that a person said are inside: the points, and some of each stroke."""
    sites = [*asked.points]
    for stroke in asked.strokes:
        painted = np.argwhere(stroke)
        sites += painted[:: max(1, len(painted) // _N_SITES)].tolist()
    return np.array(sites, np.intp).reshape(-1, 2)


def _without(mask: Mask, places: Sequence[Place], sites: NDArray[np.intp]) -> Mask:
    """The mask less the pieces that the places rule out; a piece that also holds sites goes to whichever is nearer."""
    meant = {place: place if mask[place] else _nearest(mask, place) for place in places}
    pieces, _ = ndimage.label(mask)
    kept = mask.copy()
    for number in sorted({int(pieces[at]) for at in meant.values() if at is not None}):
        ours = sites[pieces[sites[:, 0], sites[:, 1]] == number]
        theirs = [place for place in places if pieces[place] == number]
        if not len(ours):
            kept &= pieces != number
        elif theirs:
            rows, columns = np.nonzero(pieces == number)
            lost = _distance(rows, columns, theirs) <= _distance(rows, columns, ours)
            kept[rows[lost], columns[lost]] = False
    return kept


def _distance(rows: NDArray[np.intp], columns: NDArray[np.intp], places: Iterable[Any]) -> NDArray[np.intp]:
    """Squared distances to the nearest of the places: whole numbers, so that a tie is a tie on every machine."""
    nearest: NDArray[np.intp] = np.min([(rows - row) ** 2 + (columns - column) ** 2 for row, column in places], axis=0)
    return nearest
