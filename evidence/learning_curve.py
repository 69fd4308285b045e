"""A learning curve, and what may have drawn it: Dice against labels as a saturating power law, by a grid posterior.

    d(n) = a − (a − f) · exp(−r · t(n / n₀)),    t(x) = (x^p − 1) / p,  and log x at p = 0

a: the ceiling; f: the Dice at n₀, the fewest labels measured; r: the share of what is missing that the first labels
make up, for each n₀ of them; p: the bend. At p = 0 this is the power law a − b·n^−r of the literature (Cortes et al.
1993, "Learning curves: asymptotic values and rate of convergence"; Hestness et al. 2017, arXiv 1712.00409), at p = 1 an
exponential approach, above 1 a curve that starts slowly (Weibull's growth curve). A power law alone takes every first
step for the largest: where the truth is exponential its 80 % intervals hold 57 %. No d falls.

With three to six points the parameters are not determined, and a best fit would pretend they were. So every combination
on a grid is weighed by how well it explains the points, and what is asked of the curve is asked of all of them. Chance
has no part in it: the same points give the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evidence.errors import BadFigures, TooFewRounds

FEWEST_POINTS = 3

# Priors, all weak: f uniform in [0, 1]; the root of the gap a − f uniform as far as a ≤ 1 allows, so that a flat curve
# is not ruled out beforehand (with a uniform gap it would be); r uniform in its logarithm; p one of four.
_RATES = (0.05, 3.0)
_BENDS = (0.0, 0.5, 1.0, 1.5)
# By how much trainings on the same labels differ, beside the noise of measuring: uniform in its logarithm. The lower
# end is the floor of the noise: points that lie on a curve by luck must not be taken for exact.
_WOBBLES = (0.005, 0.06)
# Sizes of the axes (gaps, first Dices, rates, wobbles) in each pass; each looks closer at what the last one has left.
_PASSES = ((16, 16, 8, 4), (16, 16, 8, 4), (24, 20, 10, 5))
_NEGLIGIBLE = 1e-4  # of the best weight
_PARTICLES = 2000


@dataclass(frozen=True, init=False)
class Curve:
    """Held-out Dice after each round, in any order: labels (k,) > 0, dice (k,) in [0, 1].

    noise (k,): standard error of each Dice *against the others*, where known. What all share does not count: a held-out
    set that is easy is easy in every round. Raises BadFigures, and TooFewRounds below three numbers of labels.
    """

    labels: np.ndarray
    dice: np.ndarray
    noise: np.ndarray

    def __init__(self, labels: Sequence[float], dice: Sequence[float], noise: Sequence[float] | None = None) -> None:
        given = {"labels": labels, "dice": dice, "noise": np.zeros(len(dice)) if noise is None else noise}
        arrays = {name: np.asarray(values, dtype=float) for name, values in given.items()}
        _check(**arrays)
        order = np.argsort(arrays["labels"], kind="stable")
        for name, values in arrays.items():
            object.__setattr__(self, name, values[order])

    def __len__(self) -> int:
        """How many points it has."""
        return len(self.labels)

    def first(self, k: int) -> Curve:
        """The curve as it was after its first k points."""
        return Curve(self.labels[:k].tolist(), self.dice[:k].tolist(), self.noise[:k].tolist())


@dataclass(frozen=True)
class Fit:
    """Curves that may have drawn the points, equally likely: (m,) each. `last`: the most labels measured so far."""

    ceiling: np.ndarray
    first: np.ndarray
    rate: np.ndarray
    bend: np.ndarray
    spread: np.ndarray  # standard deviation of a measurement around the curve: wobble and the latest noise together
    start: float
    last: float

    def at(self, labels: float) -> np.ndarray:
        """The Dice of each curve at so many labels: (m,), never falling in labels."""
        missing = (self.ceiling - self.first) * np.exp(-self.rate * _time(labels / self.start, self.bend))
        return np.maximum(self.ceiling - missing, 0.0)  # below the fewest labels it would fall under the ground


def fit(curve: Curve) -> Fit:
    """Weigh the grid by the points, coarsely and then closer, and keep curves in proportion to their weight."""
    bounds = [
        (0.0, 1.0),
        (0.0, 1.0),
        (np.log(_RATES[0]), np.log(_RATES[1])),
        (np.log(_WOBBLES[0]), np.log(_WOBBLES[1])),
    ]
    for sizes in _PASSES:
        axes = [np.linspace(low, high, size) for (low, high), size in zip(bounds, sizes, strict=True)]
        weights = _weights(curve, *axes)
        bounds = [_where_weight_is(weights, axes, axis) for axis in range(len(axes))]
    chosen = np.unravel_index(_systematic(weights.ravel()), weights.shape)
    gap, first, rate, wobble, bend = (axis[at] for axis, at in zip([*axes, np.array(_BENDS)], chosen, strict=True))
    return Fit(
        ceiling=first + gap**2,
        first=first,
        rate=np.exp(rate),
        bend=bend,
        spread=np.hypot(np.exp(wobble), curve.noise[-1]),
        start=float(curve.labels[0]),
        last=float(curve.labels[-1]),
    )


def _check(labels: np.ndarray, dice: np.ndarray, noise: np.ndarray) -> None:
    if labels.ndim != 1 or not labels.shape == dice.shape == noise.shape:
        raise BadFigures(f"labels, dice and noise are parallel lists, not {labels.shape}, {dice.shape}, {noise.shape}")
    wrong = {
        "labels are not above 0": ~(np.isfinite(labels) & (labels > 0)),
        "dice is not within [0, 1]": ~((dice >= 0) & (dice <= 1)),
        "noise is not a standard error": ~(np.isfinite(noise) & (noise >= 0)),
    }
    for what, where in wrong.items():
        if where.any():
            raise BadFigures(
                f"{what} at positions {', '.join(map(str, np.flatnonzero(where)))}; leave these rounds out"
            )
    if (different := len(np.unique(labels))) < FEWEST_POINTS:
        raise TooFewRounds(
            f"a forecast needs {FEWEST_POINTS} rounds that trained on different numbers of labels and have a held-out "
            f"Dice, and there are {different}: annotate on, held-out images too, and ask again after the next round"
        )


def _time(x: np.ndarray | float, bend: np.ndarray) -> np.ndarray:
    """(x^p − 1) / p, which becomes log x at p = 0: Box and Cox 1964. x ≥ 0, in multiples of the first labels."""
    power = np.where(bend == 0, 1.0, bend)
    return np.where(bend == 0, np.log(x), (x**power - 1) / power)


def _weights(curve: Curve, gaps: np.ndarray, firsts: np.ndarray, rates: np.ndarray, wobbles: np.ndarray) -> np.ndarray:
    """Posterior weight of each combination, the best one's 1: (gaps, firsts, rates, wobbles, bends).

    gaps: roots of the gap; rates, wobbles: logarithms. In each of these the prior is uniform.
    """
    first = firsts[None, :, None, None, None]
    gap = gaps[:, None, None, None, None] ** 2
    time = _time(curve.labels / curve.labels[0], np.array(_BENDS)[:, None])  # (bends, k)
    squares = (curve.dice - first - gap * (1 - np.exp(-np.exp(rates)[:, None, None] * time))) ** 2
    found = np.empty((*squares.shape[:3], len(wobbles), len(_BENDS)))
    for at, wobble in enumerate(np.exp(wobbles)):
        variance = curve.noise**2 + wobble**2
        found[:, :, :, at] = -0.5 * (squares @ (1 / variance) + np.log(variance).sum())
    found[np.broadcast_to(first + gap > 1, found.shape)] = -np.inf
    weights: np.ndarray = np.exp(found - found.max())
    return weights


def _where_weight_is(weights: np.ndarray, axes: Sequence[np.ndarray], axis: int) -> tuple[float, float]:
    """The stretch of an axis that has any weight, with a step of room on both sides."""
    values = axes[axis]
    best = weights.max(axis=tuple(other for other in range(weights.ndim) if other != axis))
    kept = np.flatnonzero(best > _NEGLIGIBLE)
    return float(values[max(kept[0] - 1, 0)]), float(values[min(kept[-1] + 1, len(values) - 1)])


def _systematic(weights: np.ndarray) -> np.ndarray:
    """Positions in proportion to their weights, evenly and without chance (systematic resampling, Kitagawa 1996)."""
    cumulative = np.cumsum(weights)
    return np.searchsorted(cumulative, (np.arange(_PARTICLES) + 0.5) / _PARTICLES * cumulative[-1])
