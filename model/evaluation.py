"""How good a segmenter is on labelled images: overlap, boundary and calibration, per image and as means."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.data import Example, load_pairs
from model.errors import NoExamples
from model.segmenter import Segmenter

TOLERANCE_PX = 2.0
N_BINS = 15
CHUNK = 8
"""Images held in memory at once."""


@dataclass(frozen=True)
class Metrics:
    """Means over images of Dice, NSD and IoU in [0, 1], Dice per image in the order of the examples, and the ECE."""

    dice: float
    nsd: float
    iou: float
    dice_per_image: tuple[float, ...]
    ece: float
    n_images: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**dataclasses.asdict(self), "dice_per_image": list(self.dice_per_image)}


def dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """2|P∧T| / (|P|+|T|) of two masks (H, W); 1 if both are empty, 0 if one is."""
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else 1.0


def iou(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """|P∧T| / |P∨T| of two masks (H, W); 1 if both are empty, 0 if one is."""
    union = int((predicted | truth).sum())
    return int((predicted & truth).sum()) / union if union else 1.0


def boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The foreground pixels of (H, W) that have background, or the edge of the image, above, below or beside them."""
    return mask & ~ndimage.binary_erosion(mask)


def nsd(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], tolerance_px: float = TOLERANCE_PX) -> float:
    """Normalised surface Dice in two dimensions: the share of both boundaries within tolerance_px of the other.

    Nikolov et al. 2018, on boundary pixels. 1 if both masks are empty, 0 if one is.
    """
    ours, theirs = boundary(predicted), boundary(truth)
    total = int(ours.sum()) + int(theirs.sum())
    if not total:
        return 1.0
    if not ours.any() or not theirs.any():
        return 0.0
    near_theirs = ndimage.distance_transform_edt(~theirs)[ours] <= tolerance_px
    near_ours = ndimage.distance_transform_edt(~ours)[theirs] <= tolerance_px
    return int(near_theirs.sum() + near_ours.sum()) / total


class Calibration:
    """Expected calibration error of foreground probabilities, added up image by image, every pixel counting once.

    N_BINS bins of equal width; the error is the mean over pixels of |mean probability − share of foreground| of their
    bin. Guo et al. 2017.
    """

    def __init__(self) -> None:
        self._sums = np.zeros((3, N_BINS))

    def add(self, probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> None:
        """Count the pixels of one image; both (H, W)."""
        p = probability.ravel().astype(np.float64)
        bins = np.minimum((p * N_BINS).astype(int), N_BINS - 1)
        for row, weights in enumerate((None, p, truth.ravel().astype(np.float64))):
            self._sums[row] += np.bincount(bins, weights, minlength=N_BINS)

    def error(self) -> float:
        """The error in [0, 1] over all images so far."""
        count, probability, foreground = self._sums
        return float(np.abs(probability - foreground).sum() / count.sum())


def evaluate(segmenter: Segmenter, examples: Sequence[Example], n_draws: int = 8, seed: int = 0) -> Metrics:
    """Compare what an annotator would be shown (probability ≥ 0.5, image frame) with the examples' masks.

    Raises NoExamples, and BadExample naming every file that cannot be used.
    """
    if not examples:
        raise NoExamples("there is nothing to evaluate on; label some held-out images first")
    scores: list[tuple[float, float, float]] = []
    calibration = Calibration()
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        pairs = load_pairs(chunk, lambda image, mask: (image, mask))
        answers = segmenter.segment_many([image for image, _ in pairs], [e.prompt for e in chunk], n_draws, seed)
        for answer, (_, truth) in zip(answers, pairs, strict=True):
            predicted = answer.probability >= 0.5
            scores.append((dice(predicted, truth), nsd(predicted, truth), iou(predicted, truth)))
            calibration.add(answer.probability, truth)
    means = np.mean(scores, axis=0)
    return Metrics(
        dice=float(means[0]),
        nsd=float(means[1]),
        iou=float(means[2]),
        dice_per_image=tuple(score[0] for score in scores),
        ece=calibration.error(),
        n_images=len(scores),
    )
