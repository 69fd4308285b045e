"""Which annotations are likely errors: those that a model which never saw them contradicts more than it usually does.

Confident learning (Northcutt, Jiang and Chuang 2021, arXiv:1911.00068) asks the same of class labels: what does a
model say that was trained on the others? Of masks, disagreement alone would name the hard images, on which the model is
poor whoever painted. So three things are taken off. First what the model itself expects: where it says p, a mask that
it describes well differs from p by 2p(1 − p) on average. Then what is left as a rule where the model is as sure:
the median over annotations of like confidence. Last what it gets wrong in the other images of the same group: a model
that fails on one frame of a video fails on the next, and an error of the person stands in one of them. What remains is
measured in units of its spread among annotations of like confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evidence.errors import BadFigures, TooFewGroups

Numbers = NDArray[np.float64]

_SPECK_SHARE = 0.002  # of the frame: what counts as nothing beside any mask
_NEIGHBOURS_SHARE = 0.2  # of the annotations of a label are of like confidence
_LEAST_NEIGHBOURS = 15
_FLOOR = 0.25  # of the spread over all: a handful of neighbours that agree by luck must not make the next one an error
_NORMAL = 1.4826  # median absolute deviation → standard deviation, of normal numbers
_ROUNDING = 1e-12
_HALFWAY = 3.0  # spreads above the usual that make a score of ½: of normal numbers one in a thousand comes so far


@dataclass(frozen=True)
class Disagreement:
    """How a mask differs from the probabilities of a model that did not train on it.

    excess: see `disagreement`; dice: of the mask and what the model would show, probability >= ½, 1 if both are empty;
    only_model, only_person: what only one of the two has, as a share of what both have together, in [0, 1].
    """

    excess: float
    dice: float
    only_model: float
    only_person: float


def disagreement(probability: NDArray[np.floating], mask: NDArray[np.bool_]) -> Disagreement:
    """Compare a mask with the mean probability of a model that did not train on it; both (h, w), one frame.

    excess = (Σ|m − p| − 2 Σ p(1 − p)) / (Σp + Σm + ε), ε = 0.2 % of the frame: the pixels that differ beyond what the
    model expects to differ, per pixel of foreground of either. About 0 for a mask such as the model expects, up to 1.
    Raises BadFigures.
    """
    p = np.asarray(probability, dtype=np.float64)
    if p.ndim != 2 or p.shape != mask.shape or mask.dtype != np.bool_ or not p.size:
        raise BadFigures(f"a map {p.shape} needs a bool mask of its own shape, not {mask.dtype} {mask.shape}")
    if not (p.min() >= 0 and p.max() <= 1):
        raise BadFigures("probabilities must lie in [0, 1]; the weights of the model may not be finite")
    expected = 2 * float((p * (1 - p)).sum())
    differing = float(np.abs(mask - p).sum())
    foreground = float(p.sum()) + int(mask.sum())
    shown = p >= 0.5
    either, both = int((shown | mask).sum()), int((shown & mask).sum())
    return Disagreement(
        excess=(differing - expected) / (foreground + _SPECK_SHARE * p.size),
        dice=2 * both / (either + both) if either else 1.0,
        only_model=(int(shown.sum()) - both) / either if either else 0.0,
        only_person=(int(mask.sum()) - both) / either if either else 0.0,
    )


def suspicion(excess: ArrayLike, confidence: ArrayLike, groups: ArrayLike) -> Numbers:
    """How suspect each annotation of one label is, (n,) in [0, 1]: ½ at three spreads above the usual. No probability.

    excess: (n,) as `disagreement` gives; confidence: (n,) how sure the model is of each image, on any scale; groups:
    (n,), what names patient, video or volume. r = excess − median among annotations of like confidence, less
    m / (m + 1) times the median r of the m others of its group; z = (r − median) / spread, again among those of like
    confidence. The value is z / (z + 3), 0 where z < 0. Raises BadFigures.
    """
    found, sure, names = _finite(excess, "excess"), _finite(confidence, "confidence"), np.asarray(groups)
    if not found.shape == sure.shape == names.shape:
        raise BadFigures(
            f"{found.size} disagreements, {sure.size} confidences, {names.size} groups: give one of each per annotation"
        )
    if not found.size:
        return found
    beyond = found - _usual(found, sure)[0]
    beyond = beyond - _of_the_others(beyond, names)
    usual, spread = _usual(beyond, sure)
    # Where all agree to the last digit there is no spread to measure by, and no error either.
    off = np.where(beyond - usual > _ROUNDING, beyond - usual, 0.0)
    z = off / np.maximum(spread, np.finfo(float).tiny)
    return z / (z + _HALFWAY)


def usual(values: ArrayLike, confidence: ArrayLike) -> Numbers:
    """The median of values among annotations of like confidence, (n,) → (n,): what is usual. Raises BadFigures."""
    found, sure = _finite(values, "values"), _finite(confidence, "confidence")
    return _usual(found, sure)[0] if found.size else found


def folds(groups: ArrayLike, n_folds: int, *, rng: np.random.Generator) -> NDArray[np.intp]:
    """A fold in 0 … n_folds − 1 for each image, (n,): all of a group in one, the folds as equal as groups allow.

    Raises TooFewGroups where a fold would be empty, BadFigures below two folds: then nothing is left to train on.
    """
    if n_folds < 2:
        raise BadFigures(f"{n_folds} folds leave nothing to train on; give at least 2")
    _, of_group, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if len(sizes) < n_folds:
        raise TooFewGroups(len(sizes), n_folds, f"training in {n_folds} folds")
    filled = np.zeros(n_folds, dtype=np.intp)
    fold_of = np.empty(len(sizes), dtype=np.intp)
    shuffled = rng.permutation(len(sizes))
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:  # the largest first, equal ones by chance
        fold_of[group] = np.argmin(filled)
        filled[fold_of[group]] += sizes[group]
    return fold_of[of_group]


def _of_the_others(values: Numbers, groups: NDArray[Any]) -> Numbers:
    """The median of the other members of each one's group, drawn towards 0 where they are few: (n,) → (n,)."""
    found = np.zeros_like(values)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        others = len(members) - 1
        for at in members if others else ():
            found[at] = np.median(values[members[members != at]]) * others / (others + 1)
    return found


def _usual(values: Numbers, sure: Numbers) -> tuple[Numbers, Numbers]:
    """Median and spread of each value's neighbours by confidence, itself among them; both (n,)."""
    n = len(values)
    size = min(n, max(_LEAST_NEIGHBOURS, round(_NEIGHBOURS_SHARE * n)))
    order = np.argsort(sure, kind="stable")
    start = np.clip(np.arange(n) - size // 2, 0, n - size)
    # Every window of the sorted row, (n − size + 1, size), without copying.
    windows = np.lib.stride_tricks.sliding_window_view(values[order], size)
    medians = np.median(windows, axis=1)
    deviations = np.median(np.abs(windows - medians[:, None]), axis=1)
    median, spread = np.empty(n), np.empty(n)
    median[order], spread[order] = medians[start], deviations[start]
    overall = float(np.median(np.abs(values - np.median(values))))
    return median, _NORMAL * (spread + _FLOOR * overall)


def _finite(values: ArrayLike, name: str) -> Numbers:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise BadFigures(f"{name} must be finite numbers in one row, one for each annotation")
    return numbers
