"""Uncertainty map → one number per image, in the unit of the map (an average, so image size does not matter)."""

import math
from typing import Literal, get_args

import numpy as np
from scipy.ndimage import distance_transform_edt

from strategies.errors import BadDraws, BadRequest

FOREGROUND_THRESHOLD = 0.5
BAND_SHARE = 0.02  # of the shorter side: 4 px of 224
SMALL_REGION_SHARE = 0.02  # of the frame

SmallRegion = Literal["top", "mean", "zero"]


def mean(uncertainty: np.ndarray) -> float:
    """Mean over all pixels of an (h, w) map."""
    return float(uncertainty.mean())


def mean_of_top(uncertainty: np.ndarray, share: float) -> float:
    """Mean over the most uncertain `share` of the pixels, in (0, 1]; at least one pixel. Raises BadRequest."""
    if not 0.0 < share <= 1.0:
        raise BadRequest(f"share is {share}; it must be in (0, 1]")
    count = math.ceil(share * uncertainty.size)
    return float(np.partition(uncertainty, -count, axis=None)[-count:].mean())


def foreground_boundary(
    uncertainty: np.ndarray, probability: np.ndarray, *, small_region: SmallRegion = "top"
) -> float:
    """Mean over the predicted foreground and a band around it, both (h, w) in the model frame.

    A sum over the whole frame ranks by lesion area (arXiv:2401.16298); dividing by the area of the region does not.
    A region below SMALL_REGION_SHARE of the frame, which is an empty prediction or a speck, says too little about the
    image: then `small_region` decides. "top": the mean of the most uncertain SMALL_REGION_SHARE of the map counts, so
    an image in which the model almost saw something ranks high and one it is sure is empty ranks low. "mean": the mean
    of the whole map. "zero": 0, behind every image with foreground. No image is without a score.
    """
    if small_region not in get_args(SmallRegion):
        raise BadRequest(f"small_region is {small_region!r}; choose one of {', '.join(get_args(SmallRegion))}")
    if uncertainty.shape != probability.shape:
        raise BadDraws(f"uncertainty {uncertainty.shape} and probability {probability.shape} are of different frames")
    region = foreground_and_band(probability)
    if region.mean() < SMALL_REGION_SHARE:
        return _of_small_region(uncertainty, small_region)
    return float(uncertainty[region].mean())


def _of_small_region(uncertainty: np.ndarray, small_region: SmallRegion) -> float:
    if small_region == "top":
        return mean_of_top(uncertainty, SMALL_REGION_SHARE)
    return mean(uncertainty) if small_region == "mean" else 0.0


def foreground_and_band(probability: np.ndarray) -> np.ndarray:
    """Pixels of the predicted foreground, or at most a band width (Euclidean, pixel centres) away from it.

    Foreground is probability >= 0.5; the width is 2 % of the shorter side, at least one pixel. (h, w) → (h, w) bool.
    """
    foreground = probability >= FOREGROUND_THRESHOLD
    if not foreground.any():
        return foreground
    width_px = max(1, round(BAND_SHARE * min(probability.shape)))
    return np.asarray(distance_transform_edt(~foreground) <= width_px)
