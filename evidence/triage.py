"""How good a pre-annotation is at least: a lower bound on its Dice, from held-out images that people have answered.

Split conformal prediction (Vovk et al. 2005, ch. 4; Lei et al. 2018, arXiv:1604.04173). From the model's confidence c a
monotone map f predicts the Dice d, and r(c) = 1 − f(c) + 0.05 is the risk to reckon with. Each image scores
s = (1 − d) / r(c): how many times the risk it really carried. With q the quantile of the scores below, the bound is
1 − q r(c), or f(c) where that is less. A plain residual d − f(c) would take as much off where the model is sure as
where it is not.

Images of one patient, video or volume are alike, so images are not exchangeable; groups are. A group is therefore what
counts: each of the K groups has the weight 1 / (K + 1), shared out over its images, and the rest lies at infinity
(hierarchical conformal prediction: Lee, Barber and Willett 2023, arXiv:2306.06342). For an image drawn at random
from a group that was drawn like those, the bound holds with at least the nominal probability, whatever the sizes of the
groups, however alike their images, and however wrong f is. To take one image of each group (Dunn, Wasserman and Ramdas
2022, arXiv:1809.07441) promises the same and forgets the other images; to average over such draws promises less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evidence.errors import BadFigures, TooFewGroups

Numbers = NDArray[np.float64]

_NOISE = 0.05  # of a Dice: two people who agree differ by as much
_FIT_SHARE = 1 / 3  # of the groups, to fit the map; the others calibrate
_LEAST_FIT = 6  # groups; with fewer, a line says more of them than of the model
_ROUNDING = 1e-9


class Triage(StrEnum):
    """What to do with a pre-annotation: look and accept, put right, or draw anew with nothing shown."""

    accept_check = "accept-check"
    fix = "fix"
    redraw = "redraw"


@dataclass(frozen=True)
class Bound:
    """A lower bound on Dice for every confidence, as `calibrate` found it.

    The map is f(c) = intercept + slope c, kept in [0, 1], slope >= 0; factor is q. n_groups and n_images are those
    that calibrated; level the share of groups for whose images the bound holds at least.
    """

    intercept: float
    slope: float
    factor: float
    level: float
    n_groups: int
    n_images: int

    def predicted(self, confidence: ArrayLike) -> Numbers:
        """f(c), the Dice to be expected; (n,) in [0, 1] → (n,) in [0, 1]. Raises BadFigures."""
        return np.clip(self.intercept + self.slope * _shares(confidence, "confidence"), 0, 1)

    def of(self, confidence: ArrayLike) -> Numbers:
        """What the Dice is at least; (n,) in [0, 1] → (n,) in [0, 1], rising with confidence, never above `predicted`.

        Raises BadFigures.
        """
        predicted = self.predicted(confidence)
        # Above the prediction the bound would be a figure that nobody should plan with.
        return np.clip(np.minimum(predicted, 1 - self.factor * _risk(predicted)), 0, 1)


def calibrate(
    confidence: ArrayLike, dice: ArrayLike, groups: ArrayLike, level: float = 0.9, *, rng: np.random.Generator
) -> Bound:
    """The bound that images nobody has answered yet will keep, from images that somebody has.

    confidence, dice: (n,) in [0, 1]; groups: (n,), what names the patient, video or volume. Both parts, images here and
    images to come, must be of groups drawn alike, seen by the same model, which trained on neither. `rng` draws the
    groups that fit the map; where there are too few to spare, the confidence itself is the map.
    Raises TooFewGroups when there is no bound at that level but 0, and BadFigures.
    """
    c, d = _shares(confidence, "confidence"), _shares(dice, "dice")
    of_group = _numbered(groups)
    if not c.shape == d.shape == of_group.shape:
        raise BadFigures(f"{c.size} confidences, {d.size} Dice and {of_group.size} groups; give one of each per image")
    least = least_groups(level)
    n_groups = int(of_group.max(initial=-1)) + 1
    if n_groups < least:
        raise TooFewGroups(n_groups, least, f"a bound from held-out images that holds {level:.0%} of the time")
    fitting = np.isin(of_group, _groups_to_fit(n_groups, least, rng))
    intercept, slope = _line(c[fitting], d[fitting], of_group[fitting]) if fitting.any() else (0.0, 1.0)
    rest = ~fitting
    predicted = np.clip(intercept + slope * c[rest], 0, 1)
    factor = _group_quantile((1 - d[rest]) / _risk(predicted), of_group[rest], level)
    n_calibrating = n_groups - len(np.unique(of_group[fitting]))
    return Bound(intercept, slope, factor, level, n_calibrating, int(rest.sum()))


def least_groups(level: float) -> int:
    """With fewer groups no bound above 0 holds at that level: ⌈1 / α⌉ − 1, α = 1 − level. Raises BadFigures."""
    if not 0 < level < 1:
        raise BadFigures(f"level is {level}; give a share between 0 and 1, such as 0.9")
    return math.ceil(1 / (1 - level) - _ROUNDING) - 1


def verdict(bound: float, accept: float = 0.9, redraw: float = 0.5) -> Triage:
    """What a bound on Dice says is to be done; both thresholds are Dice. Raises BadFigures."""
    if not 0 <= redraw <= accept <= 1:
        raise BadFigures(f"redraw below {redraw} and accept from {accept}: both are Dice, and redraw is the lower one")
    if not 0 <= bound <= 1:
        raise BadFigures(f"a bound on Dice is in [0, 1], not {bound}")
    if bound >= accept:
        return Triage.accept_check
    return Triage.redraw if bound < redraw else Triage.fix


def _groups_to_fit(n_groups: int, least: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """A third of the groups, if both parts are then large enough; decided by counts alone, so nothing is peeked at."""
    n = min(int(n_groups * _FIT_SHARE), n_groups - least)
    return rng.permutation(n_groups)[: n if n >= _LEAST_FIT else 0]


def _line(c: Numbers, d: Numbers, of_group: NDArray[np.intp]) -> tuple[float, float]:
    """Least squares, every group weighing the same, with a slope that is not negative."""
    weight = 1 / np.bincount(of_group)[of_group]
    mean_c, mean_d = np.average(c, weights=weight), np.average(d, weights=weight)
    spread = float(weight @ np.square(c - mean_c))
    slope = max(0.0, float(weight @ ((c - mean_c) * (d - mean_d))) / spread) if spread > _ROUNDING else 0.0
    return float(mean_d - slope * mean_c), slope


def _group_quantile(scores: Numbers, of_group: NDArray[np.intp], level: float) -> float:
    """The least score that, with all below it, has the weight `level`; an image of K groups weighs 1 / ((K + 1) n)."""
    per_group = np.bincount(of_group)
    weight = 1 / ((np.count_nonzero(per_group) + 1) * per_group[of_group])
    order = np.argsort(scores)
    reached = np.cumsum(weight[order]) >= level - _ROUNDING
    return float(scores[order][int(np.argmax(reached))])


def _risk(predicted: Numbers) -> Numbers:
    return 1 - predicted + _NOISE


def _shares(values: ArrayLike, name: str) -> Numbers:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        raise BadFigures(f"{name} must be one number for each image, in one row, not of shape {numbers.shape}")
    wrong = np.flatnonzero(~((numbers >= 0) & (numbers <= 1)))
    if wrong.size:
        where = ", ".join(map(str, wrong[:5]))
        raise BadFigures(f"{name} is not in [0, 1] at positions {where}; check the predictions of those images")
    return numbers


def _numbered(groups: ArrayLike) -> NDArray[np.intp]:
    """Groups as 0 … K − 1, whatever names them."""
    names = np.asarray(groups)
    if names.ndim != 1:
        raise BadFigures(f"groups must name one group for each image, in one row, not be of shape {names.shape}")
    return np.unique(names, return_inverse=True)[1]
