"""Curves of arms → numbers that compare strategies: seed against the same seed, and ties called ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from scipy import stats

from simulation.loop import ALL, Outcome

RESAMPLES = 10_000
ALPHA = 0.05
REACHED = 0.95

Curve = list[tuple[int, list[float]]]  # (labels, one value per seed), ascending in labels


def curves(outcomes: Sequence[Outcome], measure: str) -> dict[str, Curve]:
    """Per strategy, sorted by name: its values of a measure, such as "dice", at each number of labels, by seed."""
    found: dict[str, dict[int, list[float]]] = {}
    for outcome in sorted(outcomes, key=lambda o: (o.strategy, o.n_labels, o.seed)):
        if outcome.strategy != ALL:
            found.setdefault(outcome.strategy, {}).setdefault(outcome.n_labels, []).append(getattr(outcome, measure))
    return {strategy: list(points.items()) for strategy, points in found.items()}


def areas(outcomes: Sequence[Outcome], measure: str) -> dict[str, dict[int, float]]:
    """Strategy → seed → area under its curve of a measure."""
    points: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for outcome in outcomes:
        if outcome.strategy != ALL:
            value = outcome.n_labels, float(getattr(outcome, measure))
            points.setdefault((outcome.strategy, outcome.seed), []).append(value)
    found: dict[str, dict[int, float]] = {}
    for (strategy, seed), curve in sorted(points.items()):
        found.setdefault(strategy, {})[seed] = area_under(sorted(curve))
    return found


def area_under(points: Sequence[tuple[int, float]]) -> float:
    """Trapezoid area under (labels, value) divided by the range of labels: the mean height. Unit of the value."""
    width = points[-1][0] - points[0][0]
    if width == 0:
        return points[0][1]
    return sum((right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in pairwise(points)) / width


@dataclass(frozen=True)
class Difference:
    """Mean difference over seeds, and a 95 % interval; None from a single seed, which shows no spread."""

    mean: float
    interval: tuple[float, float] | None

    @property
    def better(self) -> bool:
        """Whether the interval lies above 0."""
        return self.interval is not None and self.interval[0] > 0

    @property
    def worse(self) -> bool:
        """Whether the interval lies below 0."""
        return self.interval is not None and self.interval[1] < 0


def difference(ours: Mapping[int, float], theirs: Mapping[int, float], seed: int = 0) -> Difference | None:
    """Ours minus theirs over the seeds that both have; None where there is none.

    Paired bootstrap over seeds, the percentile interval (Efron 1979) widened by sqrt(n / (n - 1)) and by Student's t
    against the normal: the plain percentiles of five seeds would be a third too narrow.
    """
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    values = np.array([ours[s] - theirs[s] for s in shared])
    mean = float(values.mean())
    if len(values) < 2:
        return Difference(mean, None)
    drawn = np.random.default_rng(seed).integers(0, len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    n = len(values)
    wider = np.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975)
    return Difference(mean, (mean + wider * (float(low) - mean), mean + wider * (float(high) - mean)))


def penalties(outcomes: Sequence[Outcome], measure: str = "dice") -> tuple[list[str], np.ndarray]:
    """(strategies, matrix): in how many rounds after the first the row's strategy is better than the column's.

    Better: paired t-test over seeds at one number of labels, two-sided, p < 0.05 after Holm's correction over all
    pairs at that number. Beck et al. 2021 and Ash et al. 2020 count so; with few seeds most entries are 0, a tie.
    """
    by_seed = _by_seed(outcomes, measure)
    names = sorted({name for name, _ in by_seed})
    matrix = np.zeros((len(names), len(names)), dtype=int)
    rounds = sorted({n for curve in by_seed.values() for n in curve})[1:]
    for n in rounds:
        _count_wins(matrix, names, {name: _at(by_seed, name, n) for name in names})
    return names, matrix


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values (k,) adjusted for k tests (Holm 1979): reject where the result is below the level."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def budget_to(curve: Curve, target: float) -> float | None:
    """Labels at which the mean curve first reaches a value, in between by a straight line; None if it never does."""
    means = [(n, float(np.mean(values))) for n, values in curve]
    if means[0][1] >= target:
        return float(means[0][0])
    for (left, low), (right, high) in pairwise(means):
        if high >= target:
            return left + (right - left) * (target - low) / (high - low)
    return None


def with_all(outcomes: Sequence[Outcome], measure: str) -> float | None:
    """The mean over seeds of a measure after training on the whole pool; None if that was not run."""
    values = [float(getattr(outcome, measure)) for outcome in outcomes if outcome.strategy == ALL]
    return float(np.mean(values)) if values else None


def _by_seed(outcomes: Sequence[Outcome], measure: str) -> dict[tuple[str, int], dict[int, float]]:
    found: dict[tuple[str, int], dict[int, float]] = {}
    for outcome in outcomes:
        if outcome.strategy != ALL:
            found.setdefault((outcome.strategy, outcome.seed), {})[outcome.n_labels] = float(getattr(outcome, measure))
    return found


def _at(by_seed: Mapping[tuple[str, int], Mapping[int, float]], name: str, n: int) -> dict[int, float]:
    return {seed: curve[n] for (strategy, seed), curve in by_seed.items() if strategy == name and n in curve}


def _count_wins(matrix: np.ndarray, names: Sequence[str], values: Mapping[str, Mapping[int, float]]) -> None:
    pairs = list(combinations(range(len(names)), 2))
    differences = [_paired(values[names[i]], values[names[j]]) for i, j in pairs]
    adjusted = holm([_p_value(each) for each in differences])
    for (i, j), each, p in zip(pairs, differences, adjusted, strict=True):
        if p < ALPHA:
            winner, loser = (i, j) if each.mean() > 0 else (j, i)
            matrix[winner, loser] += 1


def _paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> np.ndarray:
    return np.array([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def _p_value(differences: np.ndarray) -> float:
    """Of a two-sided t-test against 0; 1 where there is nothing to test."""
    if len(differences) < 2:
        return 1.0
    if np.ptp(differences) <= 1e-9:  # equal but for rounding, of which a variance would be made
        return float(abs(differences[0]) <= 1e-9)
    return float(stats.ttest_1samp(differences, 0.0).pvalue)
