"""How good a mask or a map of probabilities is. Arrays in, numbers out: no torch, no files, no model.

Masks are bool (H, W), probabilities float (H, W) in [0, 1], and both of one comparison have the same shape: anything
else is BadInput. Distances are in pixels between pixel centres. Every number is finite, also for empty masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, spatial, special

from model.errors import BadInput

TOLERANCE_PX = 2.0
N_BINS = 15

Mask = NDArray[np.bool_]
Map = NDArray[np.floating]

_SURFEL_AREAS = np.array([0, np.sqrt(3) / 8, np.sqrt(2) / 2, 1 / 2 + 3 * np.sqrt(3) / 8, 1])
_TWO_APART = np.sqrt(3) / 4
_BAND_SHARE = 0.02
_SMALL_REGION_SHARE = 0.02


# ---- overlap ------------------------------------------------------------------------------------------------------


def dice(predicted: Mask, truth: Mask) -> float:
    """2|P∧T| / (|P|+|T|), in [0, 1]; 1 if both are empty, 0 if one is."""
    _check_masks(predicted, truth)
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else 1.0


def iou(predicted: Mask, truth: Mask) -> float:
    """|P∧T| / |P∨T|, in [0, 1]; 1 if both are empty, 0 if one is."""
    _check_masks(predicted, truth)
    union = int((predicted | truth).sum())
    return int((predicted & truth).sum()) / union if union else 1.0


# ---- boundaries ---------------------------------------------------------------------------------------------------


def boundary(mask: Mask) -> Mask:
    """The foreground pixels that have background, or the edge of the image, above, below or beside them."""
    return mask & ~ndimage.binary_erosion(mask)


@dataclass(frozen=True)
class BoundaryDistances:
    """From each boundary pixel of one mask to the nearest of the other: (n,) and (m,) in pixels, inf if it has none.

    Finding them is the costly part of nsd and hd95, so who wants both measures once.
    """

    of_predicted: NDArray[np.float64]
    of_truth: NDArray[np.float64]
    diagonal: float
    """The farthest that two pixels of the image can lie apart."""

    @classmethod
    def between(cls, predicted: Mask, truth: Mask) -> BoundaryDistances:
        """Measure two masks."""
        _check_masks(predicted, truth)
        window = _bounding_box(predicted | truth)
        ours, theirs = np.argwhere(boundary(predicted[window])), np.argwhere(boundary(truth[window]))
        diagonal = float(np.hypot(*np.subtract(truth.shape, 1)))
        return cls(_to_nearest(ours, theirs), _to_nearest(theirs, ours), diagonal)

    def nsd(self, tolerance_px: float = TOLERANCE_PX) -> float:
        """See the function of that name."""
        both = np.concatenate([self.of_predicted, self.of_truth])
        return float((both <= tolerance_px).mean()) if both.size else 1.0

    def hd95(self) -> float:
        """See the function of that name."""
        if not self.of_predicted.size and not self.of_truth.size:
            return 0.0
        if not self.of_predicted.size or not self.of_truth.size:
            return self.diagonal
        return max(float(np.percentile(distances, 95)) for distances in (self.of_predicted, self.of_truth))


def nsd(predicted: Mask, truth: Mask, tolerance_px: float = TOLERANCE_PX) -> float:
    """Normalised surface Dice in two dimensions: the share of both boundaries within tolerance_px of the other.

    Nikolov et al. 2018 (arXiv:1809.04430), with boundary pixels for elements of the boundary. In [0, 1]; 1 if both
    masks are empty, 0 if one is.
    """
    return BoundaryDistances.between(predicted, truth).nsd(tolerance_px)


def hd95(predicted: Mask, truth: Mask) -> float:
    """95 % Hausdorff distance in pixels: the larger of the two 95th percentiles of boundary distances.

    Percentiles are interpolated linearly. 0 if both masks are empty. If one is, the diagonal of the image, which no
    distance in it exceeds: finding nothing is never better than finding something wrong.
    """
    return BoundaryDistances.between(predicted, truth).hd95()


# ---- as published -------------------------------------------------------------------------------------------------


def nsd_released(predicted: Mask, truth: Mask, tolerance_px: float = TOLERANCE_PX) -> float:
    """What MedCLIPSeg's released evaluation calls NSD. Not a boundary metric: for comparison with its tables alone.

    It hands the mask, as a volume one voxel thick, to the surface distance of Nikolov et al. 2018 for volumes. Such a
    slab is surface above and below each of its pixels, so this is an overlap of areas with 2 px of slack. Each 2 × 2
    window that meets the mask holds marching-cubes elements of known area; nsd_released is the share of the area whose
    window lies within tolerance_px of a window that meets the other mask. The two faces of the slab are equal, so one
    is enough. 1 if both masks are empty, 0 if one is.
    """
    _check_masks(predicted, truth)
    if not predicted.any() or not truth.any():
        return float(predicted.any() == truth.any())
    window = _bounding_box(predicted | truth)
    ours, theirs = _surfel_areas(predicted[window]), _surfel_areas(truth[window])
    near = ours[_within(tolerance_px, theirs > 0)].sum() + theirs[_within(tolerance_px, ours > 0)].sum()
    return float(near / (ours.sum() + theirs.sum()))


def released_mean(values: ArrayLike) -> float:
    """The mean as the released evaluation takes it: of values rounded to four decimals each."""
    return float(np.mean(np.round(_numbers(values, "values"), 4)))


# ---- probabilities ------------------------------------------------------------------------------------------------


def brier(probability: Map, truth: Mask) -> float:
    """Mean over pixels of (p − y)², in [0, 1]; ¼ for a map that says ½ everywhere. Brier 1950."""
    _check_map(probability, truth)
    return float(np.square(probability.astype(np.float64) - truth).mean())


@dataclass(frozen=True)
class Bin:
    """The pixels whose probability lies in [lower, upper), the last bin's upper end included; means None if none do."""

    lower: float
    upper: float
    n_pixels: int
    probability: float | None
    foreground: float | None


class Reliability:
    """Predicted probability against share of foreground, added up image by image, every pixel counting once.

    N_BINS bins of equal width over the probability of foreground. Guo et al. 2017 (arXiv:1706.04599) bin the
    probability of the likelier class; here 0.1 and 0.9 stay apart, so errors of opposite sign do not cancel.
    """

    def __init__(self) -> None:
        self._sums = np.zeros((3, N_BINS))

    def add(self, probability: Map, truth: Mask) -> None:
        """Count the pixels of one image."""
        _check_map(probability, truth)
        p = probability.ravel().astype(np.float64)
        bins = np.minimum((p * N_BINS).astype(int), N_BINS - 1)
        for row, weights in enumerate((None, p, truth.ravel().astype(np.float64))):
            self._sums[row] += np.bincount(bins, weights, minlength=N_BINS)

    def ece(self) -> float:
        """Expected calibration error in [0, 1]: mean over pixels of |mean p − share of foreground| of their bin."""
        count, probability, foreground = self._sums
        if not count.sum():
            raise BadInput("no pixel has been counted yet; add an image first")
        return float(np.abs(probability - foreground).sum() / count.sum())

    def bins(self) -> list[Bin]:
        """The N_BINS bins from 0 to 1: the points of a reliability diagram."""
        edges = np.linspace(0, 1, N_BINS + 1)
        return [
            Bin(float(low), float(high), int(n), float(p / n) if n else None, float(y / n) if n else None)
            for low, high, (n, p, y) in zip(edges[:-1], edges[1:], self._sums.T, strict=True)
        ]


# ---- confidence ---------------------------------------------------------------------------------------------------


def confidence(probability: Map) -> float:
    """How sure a map (h, w) is of its mask p ≥ ½, in [0, 1]: 1 − mean entropy, in bits, of where the mask is decided.

    That is on the foreground and within 2 % of the frame's shorter side of it; if this is below 2 % of the frame, as of
    an empty mask, on the most doubtful 2 % of the pixels instead. Doubt summed over the frame would rank by the size of
    what is seen (arXiv:2401.16298), divided by the frame by how empty it is. The query strategy `entropy` ranks the
    pool by the same number, so the risk–coverage curve also says whether the queue brings the worst masks first.
    """
    p = probability.astype(np.float64)
    doubt = (special.entr(p) + special.entr(1 - p)) / np.log(2)
    mask = p >= 0.5
    decided = _within(max(1, round(_BAND_SHARE * min(p.shape))), mask) if mask.any() else mask
    if decided.mean() >= _SMALL_REGION_SHARE:
        return float(1 - doubt[decided].mean())
    count = int(np.ceil(_SMALL_REGION_SHARE * p.size))
    return float(1 - np.partition(doubt, -count, axis=None)[-count:].mean())


def risk_coverage(risks: ArrayLike, confidences: ArrayLike) -> NDArray[np.float64]:
    """Mean risk of the 1, 2, …, n most confident images: (n,).

    Images of equal confidence come in no order: each entry is its expectation over all orders of the ties.
    """
    risk, sure = _numbers(risks, "risks"), _numbers(confidences, "confidences")
    if risk.shape != sure.shape:
        raise BadInput(f"{risk.size} risks came with {sure.size} confidences; give one of each per image")
    _, group = np.unique(-sure, return_inverse=True)
    of_group = np.bincount(group, risk) / np.bincount(group)
    return np.cumsum(of_group[np.sort(group)]) / np.arange(1, risk.size + 1)


def aurc(risks: ArrayLike, confidences: ArrayLike) -> float:
    """Area under the risk–coverage curve: the mean of `risk_coverage` over coverages 1/n … 1. Lower is better.

    Geifman and El-Yaniv 2017 (arXiv:1705.08500). A confidence that knows nothing gives the mean risk; the least that
    any order of the images reaches is given by confidence = −risk.
    """
    return float(risk_coverage(risks, confidences).mean())


# ---- below the line -----------------------------------------------------------------------------------------------


def _check_masks(predicted: Mask, truth: Mask) -> None:
    if predicted.dtype != np.bool_ or truth.dtype != np.bool_:
        raise BadInput(f"masks must be bool, not {predicted.dtype} and {truth.dtype}; compare with a threshold first")
    if predicted.ndim != 2 or predicted.shape != truth.shape:
        raise BadInput(f"masks must be (H, W) and alike, not {predicted.shape} and {truth.shape}; resize one of them")
    if not predicted.size:
        raise BadInput("masks must have at least one pixel")


def _check_map(probability: Map, truth: Mask) -> None:
    if truth.dtype != np.bool_ or probability.shape != truth.shape or not truth.size:
        raise BadInput(
            f"probabilities {probability.shape} need a bool mask of their own shape, not {truth.dtype} {truth.shape}"
        )
    if not (probability.min() >= 0 and probability.max() <= 1):  # so that NaN does not pass
        raise BadInput("probabilities must lie in [0, 1]; the model's weights may not be finite")


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
        raise BadInput(f"{name} must be finite numbers, at least one, in one row")
    return numbers


def _to_nearest(points: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.float64]:
    """Distance (n,) of each point (n, 2) to the nearest other (m, 2); a tree's cost does not grow with the image."""
    if not len(points) or not len(others):
        return np.full(len(points), np.inf)
    return spatial.cKDTree(others).query(points)[0]


def _bounding_box(mask: Mask) -> tuple[slice, slice]:
    """The smallest window that holds all foreground, which is no pixel of an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return slice(0), slice(0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _surfel_areas(mask: Mask) -> NDArray[np.float64]:
    """Surface of one face of the slab in each 2 × 2 window (H + 1, W + 1), the outside being background.

    One pixel of four cuts off a corner of the cube (√3/8), two side by side a roof (√2/2), two across two corners,
    three a pentagon, four a plane.
    """
    padded = np.pad(mask, 1)
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    count = a.astype(np.int8) + b + c + d
    return np.where((count == 2) & (a == d), _TWO_APART, _SURFEL_AREAS[count])


def _within(distance_px: float, marked: Mask) -> Mask:
    """Where the nearest place of those marked, of which there is one, is at most that far away."""
    return np.asarray(ndimage.distance_transform_edt(~marked) <= distance_px)
