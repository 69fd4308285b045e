"""Annotation errors planted on purpose, a tenth of all: what a search for label errors is held to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Mask = NDArray[np.bool_]
KINDS = ("shifted", "dilated", "missing", "swapped")
SHARE = 0.1


def planted(masks: Sequence[Mask], groups: Sequence[str], rng: np.random.Generator) -> tuple[list[Mask], list[str]]:
    """The masks with a tenth of them spoilt, a quarter of these each way, and how each was; "" where it was not."""
    spoilt, kinds = list(masks), [""] * len(masks)
    some = [at for at in range(len(masks)) if masks[at].any()]
    for n, at in enumerate(rng.permutation(some)[: round(SHARE * len(masks))].tolist()):
        kinds[at] = KINDS[n % len(KINDS)]
        if kinds[at] == "shifted":
            spoilt[at] = shifted(masks[at], rng)
        elif kinds[at] == "dilated":
            spoilt[at] = dilated(masks[at])
        elif kinds[at] == "missing":
            spoilt[at] = np.zeros_like(masks[at])
        else:
            other = rng.choice([one for one in some if groups[one] != groups[at]])
            spoilt[at] = resized(masks[other], masks[at].shape)
    return spoilt, kinds


def shifted(mask: Mask, rng: np.random.Generator) -> Mask:
    """Moved by a third of its height and width in some direction, cut off at the edge."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    angle = rng.uniform(0, 2 * np.pi)
    by = np.sin(angle) * (np.ptp(rows) + 1) / 3, np.cos(angle) * (np.ptp(columns) + 1) / 3
    return np.asarray(ndimage.shift(mask.astype(float), by, order=0) > 0.5)


def dilated(mask: Mask) -> Mask:
    """Grown evenly to twice its area."""
    distance = ndimage.distance_transform_edt(~mask)
    wanted = min(2 * int(mask.sum()), mask.size) - 1
    return np.asarray(distance <= np.partition(distance, wanted, axis=None)[wanted])


def resized(mask: Mask, shape: tuple[int, ...]) -> Mask:
    height, width = shape
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def found(order: Sequence[int] | NDArray[np.intp], kinds: Sequence[str], share: float = SHARE) -> list[str]:
    """How the planted errors among the first of an order were spoilt."""
    return [kinds[at] for at in order[: round(share * len(kinds))] if kinds[at]]
