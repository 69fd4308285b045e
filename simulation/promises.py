"""What the product promises beside an order, held to the same rounds: bounds on Dice, and forecasts of the curve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evidence import forecast, triage
from evidence.errors import TooFewGroups
from evidence.learning_curve import FEWEST_POINTS, Curve
from simulation.loop import ALL, Record

LEVELS = (0.9, 0.8)  # the first that the groups suffice for


@dataclass(frozen=True)
class Kept:
    """How lower bounds on Dice did on images of groups that calibrated none of them.

    coverage: the share of images, every group weighing the same, whose Dice was not below its bound; at least `level`
    is promised. verdicts: of each verdict the share of all images and their mean Dice.
    """

    level: float
    n_groups: int
    coverage: float
    verdicts: dict[str, tuple[float, float]]


def bounds(records: Sequence[Record], groups: Mapping[str, str]) -> Kept | None:
    """Leave one held-out group out, calibrate on the others, judge it; in the last round of every arm.

    groups: of each held-out image, by id. None where the groups are too few for any bound, or no image was judged.
    """
    last = [record for record in _last_rounds(records) if record.images]
    return next((kept for level in LEVELS if last and (kept := _bounds(last, groups, level))), None)


def _bounds(last: Sequence[Record], groups: Mapping[str, str], level: float) -> Kept | None:
    judged = [_left_out(record, groups, level) for record in last]
    if any(each is None for each in judged):
        return None
    rows = np.concatenate([each for each in judged if each is not None])
    dice, bound, weight = rows.T
    found = np.array([triage.verdict(each).value for each in bound])
    verdicts = {
        verdict.value: (float((found == verdict).mean()), float(dice[found == verdict].mean()))
        for verdict in triage.Triage
        if (found == verdict).any()
    }
    coverage = float(np.average(dice >= bound, weights=weight))
    return Kept(level, len(set(groups.values())), coverage, verdicts)


def forecasts(records: Sequence[Record]) -> forecast.Backtest | None:
    """Every arm's curve forecast from each of its beginnings; None where no curve has enough rounds."""
    points: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for record in records:
        outcome = record.outcome
        if outcome.strategy != ALL:
            points.setdefault((outcome.strategy, outcome.seed), []).append((outcome.n_labels, outcome.dice))
    curves = [Curve(*zip(*each, strict=True)) for each in points.values() if len(each) > FEWEST_POINTS]
    return forecast.backtest(curves) if curves else None


def _last_rounds(records: Iterable[Record]) -> list[Record]:
    last: dict[tuple[str, int], Record] = {}
    for record in records:
        if record.outcome.strategy != ALL:
            last[record.outcome.strategy, record.outcome.seed] = record
    return list(last.values())


def _left_out(record: Record, groups: Mapping[str, str], level: float) -> np.ndarray | None:
    """(n, 3): Dice, bound and weight of every held-out image."""
    dice = np.array([image.dice for image in record.images])
    confidence = np.array([image.confidence for image in record.images])
    names, of_group, sizes = np.unique(
        [groups[image.id] for image in record.images], return_inverse=True, return_counts=True
    )
    bound = np.empty(len(dice))
    for at in range(len(names)):
        others, rng = of_group != at, np.random.default_rng([record.outcome.seed, at])
        try:
            found = triage.calibrate(confidence[others], dice[others], of_group[others], level, rng=rng)
        except TooFewGroups:
            return None
        bound[~others] = found.of(confidence[~others])
    return np.stack([dice, bound, 1 / sizes[of_group]], axis=1)
