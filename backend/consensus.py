"""One mask out of several people's. Pure: masks in, mask out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

How = Literal["majority", "staple"]

_MAX_ITERATIONS = 100  # of STAPLE; it settles within a few dozen, and must end where it does not


def fuse(masks: Sequence[NDArray[np.bool_]], how: How) -> NDArray[np.bool_]:
    """The mask that several annotators agree on. masks: each (H, W) bool, image frame. Returns (H, W) bool.

    What all painted is painted, and what nobody painted is not. In between, `majority`: where more than half painted;
    a tie is not painted. `staple`: where the mask is more likely than not, each annotator being trusted as far as the
    others bear them out (Warfield et al. 2004); where that has no answer, the majority's.
    The order of the masks does not matter. Raises ValueError without masks, or for masks of different sizes.
    """
    if len({mask.shape for mask in masks}) != 1:
        raise ValueError(f"masks of one size are fused, not of {[mask.shape for mask in masks]}")
    agreed, anybody = np.logical_and.reduce(masks), np.logical_or.reduce(masks)
    if np.array_equal(agreed, anybody):
        return agreed
    found = _majority(masks) if how == "majority" else _staple(masks)
    return (found & anybody) | agreed


def _majority(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    import SimpleITK

    library: Any = SimpleITK  # it has no types
    votes = library.LabelVoting(_images(masks), 0)  # 0: what an undecided pixel becomes
    return np.asarray(library.GetArrayFromImage(votes) == 1)


def _staple(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    import SimpleITK

    library: Any = SimpleITK  # it has no types
    # The order of the sums would otherwise decide pixels that stand on the edge.
    ordered = sorted(masks, key=lambda mask: mask.tobytes())
    probability = library.GetArrayFromImage(library.STAPLE(_images(ordered), 1.0, 1, _MAX_ITERATIONS))
    if not np.isfinite(probability).all():
        return _majority(masks)
    return np.asarray(probability > 0.5)


def _images(masks: Sequence[NDArray[np.bool_]]) -> list[Any]:
    import SimpleITK

    return [SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in masks]
