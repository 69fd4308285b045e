"""How far it still is: labels to a target Dice with an interval, what more labels will bring, and when to stop.

Everything is about the held-out Dice *as the project measures it*: whether its held-out images stand for others is
another question. Labels to come are taken to be asked for as those so far, and answered as well.

    curve = Curve(labels=[20, 40, 60, 80], dice=[0.61, 0.70, 0.74, 0.76])
    labels_to(fit(curve), 0.8)  # Interval(low=…, median=…, high=…) labels more; infinite: it may never be reached
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from evidence.errors import BadFigures
from evidence.learning_curve import FEWEST_POINTS, Curve, Fit, fit

__all__ = [
    "Backtest", "Curve", "Fit", "Interval", "Stop", "backtest", "ceiling", "chance_of", "expected_gain", "fit",
    "labels_to", "predict", "should_stop", "words_for_labels",
]  # fmt: skip

LEVEL = 0.8
QUERIES = 5  # one query rarely brings more than the noise, even where five bring a lot
# How sure a stop must be. On simulated curves of five shapes an even chance would give up 9 to 19 % of those that still
# have twice the noise to gain; this gives up 2 % at most, and sees 9 plateaus of 10.
_SURE = 0.8
# No real curve is one of ours. Beyond the last measurement a curve may drift by this much (Dice, standard deviation)
# for each doubling of the labels.
_DRIFT = 0.01
_FARTHEST = 30  # times the labels so far: beyond, nobody waits
_NORMAL = ndtri((np.arange(15) + 0.5) / 15)  # a normal distribution in 15 equal parts


class Interval(NamedTuple):
    """Below `low` and above `high` lie equal shares of what is possible; `high` may be infinite."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Stop:
    """Whether to stop, and why in words.

    gain: of the next queries, Dice. noise: of one measurement, Dice. lost: the chance that the gain is below the noise.
    """

    stop: bool
    gain: Interval
    noise: float
    lost: float
    why: str


@dataclass(frozen=True)
class Backtest:
    """How intervals did on Dice that had not been seen: `coverage` should be no less than `level`.

    median_width: of the intervals, Dice. error: median distance of the forecast from the truth, Dice. bias: mean of
    truth minus forecast; above 0 means that things turn out better. by_points: coverage after so many points.
    """

    level: float
    n: int
    coverage: float
    median_width: float
    error: float
    bias: float
    by_points: dict[int, float]


def predict(fitted: Fit, labels: float, level: float = LEVEL) -> Interval:
    """The held-out Dice that a round with so many labels will measure. The median never falls in labels."""
    curves = fitted.at(labels)
    spread = np.hypot(fitted.spread, _drift(fitted, labels))
    low, high = _ends(np.clip(curves[:, None] + spread[:, None] * _NORMAL, 0, 1), level)
    median = float(np.median(curves))
    return Interval(min(low, median), median, max(high, median))


def ceiling(fitted: Fit, level: float = LEVEL) -> Interval:
    """The Dice that no number of such labels is seen to pass. Few points leave it wide open."""
    low, high = _ends(fitted.ceiling, level)
    return Interval(low, float(np.median(fitted.ceiling)), high)


def labels_to(fitted: Fit, target: float, level: float = LEVEL) -> Interval:
    """Labels still needed until the curve, without the noise of measuring it, has reached the target Dice.

    0: it has been reached. Infinite: perhaps never, or not with thirty times the labels. Raises BadFigures.
    """
    if not 0 < target < 1:
        raise BadFigures(f"a target Dice lies between 0 and 1, not at {target}; 0.9 would be one")
    labels = np.unique(np.ceil(fitted.last * np.geomspace(1, _FARTHEST, 200)))
    reached = np.maximum.accumulate([_chance_at(fitted, each, target) for each in labels])
    ends = ((1 - level) / 2, 0.5, (1 + level) / 2)
    found = [labels[np.argmax(reached >= share)] if reached[-1] >= share else math.inf for share in ends]
    return Interval(*(float(each - fitted.last) for each in found))


def chance_of(fitted: Fit, target: float, more_labels: float) -> float:
    """The chance that the curve reaches the target Dice within so many more labels."""
    return max(_chance_at(fitted, labels, target) for labels in (fitted.last, fitted.last + more_labels))


def expected_gain(fitted: Fit, more_labels: float, level: float = LEVEL) -> Interval:
    """By how much the curve rises over so many more labels, Dice: neither noise nor drift, which may as well fall."""
    gains = _gains(fitted, more_labels)
    low, high = _ends(gains, level)
    return Interval(low, float(np.median(gains)), high)


def should_stop(fitted: Fit, query_size: int, queries: int = QUERIES) -> Stop:
    """Stop when the next queries bring, almost surely, less than one measurement of the Dice wavers by."""
    gain = expected_gain(fitted, query_size * queries)
    noise = float(np.median(fitted.spread))
    lost = float(np.mean(_gains(fitted, query_size * queries) < noise))
    stop = lost >= _SURE
    asked = f"the next {queries} queries of {query_size}" if queries > 1 else f"the next query of {query_size}"
    why = (
        f"{asked} should add {gain.median:.3f} Dice ({gain.low:.3f} to {gain.high:.3f}); the chance that this is "
        f"less than the {noise:.3f} by which one measurement wavers is {_percent(lost)}: {'stop' if stop else 'go on'}"
    )
    return Stop(stop, gain, noise, lost, why)


def words_for_labels(fitted: Fit, target: float, level: float = LEVEL) -> str:
    """How many labels the target needs, for a person."""
    low, median, high = labels_to(fitted, target, level)
    share = _percent(level)
    if high == 0:
        return f"a Dice of {target:g} has been reached: no more labels are needed"
    if median == 0:
        return f"a Dice of {target:g} has probably been reached; with bad luck {_count(high)} more labels are needed"
    if math.isinf(median):
        top = ceiling(fitted, level)
        first = "" if math.isinf(low) else f" (with luck after {low:.0f} more labels)"
        return (
            f"a Dice of {target:g} may never be reached this way{first}: the curve seems to end at {top.median:.2f}, "
            f"{share} interval {top.low:.2f} to {top.high:.2f}"
        )
    end = "perhaps never" if math.isinf(high) else f"{high:.0f}"
    return f"a Dice of {target:g} needs about {median:.0f} more labels, {share} interval {low:.0f} to {end}"


def backtest(curves: Iterable[Curve], level: float = LEVEL, fewest: int = FEWEST_POINTS) -> Backtest:
    """Forecast each curve from each of its beginnings and count how often what came lay in the interval.

    fewest: points of the shortest beginning. Raises BadFigures when no curve is longer than that.
    """
    found: list[tuple[int, float, Interval]] = []  # points known, what came, what was forecast
    for curve in curves:
        for known in range(fewest, len(curve)):
            fitted = fit(curve.first(known))
            for labels, dice in zip(curve.labels[known:], curve.dice[known:], strict=True):
                found.append((known, float(dice), predict(fitted, float(labels), level)))
    if not found:
        raise BadFigures(f"no curve has more than {fewest} points, so nothing can be held against a forecast")
    points, came = np.array([row[0] for row in found]), np.array([row[1] for row in found])
    low, median, high = np.array([row[2] for row in found]).T
    hits = (low <= came) & (came <= high)
    return Backtest(
        level=level,
        n=len(found),
        coverage=float(hits.mean()),
        median_width=float(np.median(high - low)),
        error=float(np.median(np.abs(came - median))),
        bias=float((came - median).mean()),
        by_points={int(k): float(hits[points == k].mean()) for k in np.unique(points)},
    )


def _drift(fitted: Fit, labels: float) -> float:
    return _DRIFT * max(0.0, math.log2(labels / fitted.last))


def _gains(fitted: Fit, more_labels: float) -> np.ndarray:
    """What each curve gains: (m,) ≥ 0."""
    if more_labels < 0:
        raise BadFigures(f"{more_labels} more labels are fewer; give a number of labels to come")
    gains: np.ndarray = fitted.at(fitted.last + more_labels) - fitted.at(fitted.last)
    return gains


def _chance_at(fitted: Fit, labels: float, target: float) -> float:
    above = fitted.at(labels) - target
    drift = _drift(fitted, labels)
    return float(np.mean(ndtr(above / drift) if drift else above >= 0))


def _ends(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _count(labels: float) -> str:
    return "any number of" if math.isinf(labels) else f"{labels:.0f}"
