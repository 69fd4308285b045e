"""From probabilities to the masks that people see: thresholded, of one label or of several, without confetti.

Frame: everything is (H, W) of one image. Pieces are pixels joined by their edges, holes are joined by edges or corners.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.5

Mask = NDArray[np.bool_]


def drawn(probabilities: Mapping[str, NDArray[np.floating]], *, exclusive: bool, speck_share: float) -> dict[str, Mask]:
    """The mask of each label: where its probability is above `THRESHOLD`, cleaned as `cleaned` says.

    probabilities: label → (H, W) in [0, 1]. With `exclusive` a pixel has one label at most, the most probable one, of
    equals the first, and no hole is filled where another label is. Returns label → (H, W) bool, in the same order.
    """
    smallest = smallest_piece(next(iter(probabilities.values())).shape, speck_share) if probabilities else 1
    if not exclusive:
        return {label: cleaned(one > THRESHOLD, smallest) for label, one in probabilities.items()}
    best = np.argmax(np.stack(list(probabilities.values())), axis=0)
    own = {label: (one > THRESHOLD) & (best == at) for at, (label, one) in enumerate(probabilities.items())}
    taken: Mask = np.logical_or.reduce(list(own.values()))
    for label, mask in own.items():
        own[label] = cleaned(mask, smallest) & (mask | ~taken)
        taken |= own[label]
    return own


def smallest_piece(shape: tuple[int, ...], speck_share: float) -> int:
    """How many pixels a piece or a hole of an image must have to be kept: a share of the image, at least one pixel."""
    return max(1, math.ceil(speck_share * shape[0] * shape[1]))


def cleaned(mask: Mask, smallest: int) -> Mask:
    """A mask (H, W) bool without specks and pinholes: pieces and holes of fewer than `smallest` pixels.

    The largest piece stays however small it is, so that cleaning never empties a mask. What is open to the rim of the
    image is no hole.
    """
    from scipy import ndimage

    if smallest < 2 or not mask.any():
        return mask
    pieces, _ = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept = (sizes >= smallest) | (np.arange(len(sizes)) == sizes.argmax())
    kept[0] = False
    solid: Mask = kept[pieces]
    gaps, _ = ndimage.label(~solid, structure=np.ones((3, 3)))
    rim = np.concatenate([gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]])
    filled = np.bincount(gaps.ravel()) < smallest
    filled[[0, *rim]] = False
    return np.asarray(solid | filled[gaps])
