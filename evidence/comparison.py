"""Two arms, one measure: strategy minus random within rounds, with an interval that takes groups whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from evidence.errors import BadFigures

LEVEL = 0.9
FEWEST_ANSWERS = 10  # of each arm, in rounds that have both
FEWEST_GROUPS = 5  # of each arm: answers about one patient are one opinion
MEASURES = {
    "dice": "answers with a pre-annotation",
    "seconds": "answers with a lead time",
    "accepted": "answers with a pre-annotation",
}
_RESAMPLES = 2000
_AT_ONCE = 100  # resamples: of ten thousand groups all would not fit in memory
_LONGEST = 5  # times the median: somebody who goes for lunch with a task open must not decide


@dataclass(frozen=True)
class Answers:
    """Annotations of both arms, parallel (n,): `random` bool, True where chance asked; `groups`, `rounds`: any names.

    dice in [0, 1]: of pre-annotation and answer. seconds ≥ 0: lead time. accepted 0 or 1: submitted as it was shown.
    NaN where unknown. Raises BadFigures.
    """

    random: np.ndarray
    groups: np.ndarray
    rounds: np.ndarray
    dice: np.ndarray
    seconds: np.ndarray
    accepted: np.ndarray

    def __post_init__(self) -> None:
        """Refuse arrays that disagree and figures that are none."""
        shapes = {name: np.shape(values) for name, values in vars(self).items()}
        if len(set(shapes.values())) != 1 or self.random.ndim != 1 or self.random.dtype != bool:
            raise BadFigures(f"answers are parallel lists, not {shapes}, and random is true or false")
        for name, most in (("dice", 1.0), ("seconds", np.inf), ("accepted", 1.0)):
            values = getattr(self, name)
            if len(wrong := np.flatnonzero((values < 0) | (values > most) | np.isinf(values))):
                raise BadFigures(f"{name} is out of range at positions {', '.join(map(str, wrong))}; leave these out")


class Estimate(NamedTuple):
    """A figure and the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """One measure in both arms, over the rounds that have both; `difference`: strategy − random.

    None where too little is known, and then `why_not` says in words what is missing.
    """

    measure: str
    n_strategy: int
    n_random: int
    strategy: float | None = None
    random: float | None = None
    difference: Estimate | None = None
    why_not: str | None = None


def compare(answers: Answers, measure: str, seed: int = 0, level: float = LEVEL) -> Comparison:
    """One of MEASURES in the strategy's answers and in the random ones.

    The difference is the mean over rounds of the differences within them, weighted by n_s · n_r / (n_s + n_r): what a
    regression on arm and round gives. Its interval is a percentile bootstrap over groups, as images of one patient
    resemble each other (Field and Welsh 2007), widened by √(G / (G − 1)) for the few groups G of the smaller arm.
    """
    rows, values = _known(answers, measure)
    n_random = int(rows.random.sum())
    n_strategy = len(rows.random) - n_random
    if why_not := _too_few(rows, measure):
        return Comparison(measure, n_strategy, n_random, why_not=why_not)
    table = _Table.of(rows, values)
    strategy, random = (float(mean[0]) for mean in table.means(np.ones((1, table.n_groups))))
    drawn = np.concatenate([np.subtract(*table.means(weights)) for weights in _draws(table.n_groups, seed)])
    groups = min(_count(rows.groups[rows.random == arm]) for arm in (True, False))
    difference = _interval(strategy - random, drawn, groups, level)
    return Comparison(measure, n_strategy, n_random, strategy, random, difference)


def random_dice(answers: Answers, seed: int = 0, level: float = LEVEL) -> Estimate | None:
    """How good pre-annotations are: the mean Dice of all random answers. None below FEWEST_ANSWERS or FEWEST_GROUPS."""
    wanted = answers.random & np.isfinite(answers.dice)
    groups = _count(answers.groups[wanted])
    if wanted.sum() < FEWEST_ANSWERS or groups < FEWEST_GROUPS:
        return None
    codes = np.unique(answers.groups[wanted], return_inverse=True)[1]
    sums, sizes = np.bincount(codes, weights=answers.dice[wanted]), np.bincount(codes)
    drawn = np.concatenate([weights @ sums / (weights @ sizes) for weights in _draws(groups, seed)])
    return _interval(float(sums.sum() / sizes.sum()), drawn, groups, level)


@dataclass(frozen=True)
class _Table:
    """Sums and numbers of values by arm (strategy, random), group and round: (2, groups, rounds)."""

    sums: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, rows: Answers, values: np.ndarray) -> _Table:
        groups, rounds = (np.unique(each, return_inverse=True)[1] for each in (rows.groups, rows.rounds))
        shape = (2, int(groups.max()) + 1, int(rounds.max()) + 1)
        sums, sizes = np.zeros(shape), np.zeros(shape)
        np.add.at(sums, (rows.random.astype(int), groups, rounds), values)
        np.add.at(sizes, (rows.random.astype(int), groups, rounds), 1)
        return cls(sums, sizes)

    @property
    def n_groups(self) -> int:
        return int(self.sums.shape[1])

    def means(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of strategy and random over the same rounds: weights (b, groups) → two (b,), NaN where no round has both."""
        sizes, sums = weights @ self.sizes, weights @ self.sums  # (2, b, rounds)
        share = sizes.prod(axis=0) / np.maximum(sizes.sum(axis=0), 1)  # 0 where one arm is missing
        with np.errstate(invalid="ignore"):
            strategy, random = (sums / np.maximum(sizes, 1) * share).sum(axis=2) / share.sum(axis=1)
        return strategy, random


def _known(answers: Answers, measure: str) -> tuple[Answers, np.ndarray]:
    """The answers that say something about the measure, in rounds where both arms do, and what they say."""
    values = getattr(answers, measure)
    known = np.isfinite(values)
    both = np.intersect1d(answers.rounds[known & answers.random], answers.rounds[known & ~answers.random])
    kept = known & np.isin(answers.rounds, both)
    values = values[kept]
    if measure == "seconds" and len(values):
        values = np.minimum(values, _LONGEST * np.median(values))
    return Answers(**{name: each[kept] for name, each in vars(answers).items()}), values


def _too_few(rows: Answers, measure: str) -> str | None:
    for arm, chance in (("random", True), ("strategy", False)):
        of_arm = rows.random == chance
        n, groups = int(of_arm.sum()), _count(rows.groups[of_arm])
        what = f"{n} {arm} {MEASURES[measure] if n != 1 else MEASURES[measure].replace('answers', 'answer')}"
        if n < FEWEST_ANSWERS:
            return f"{what}, at least {FEWEST_ANSWERS} needed"
        if groups < FEWEST_GROUPS:
            return f"{what} of {groups} group{'s' if groups > 1 else ''}, at least {FEWEST_GROUPS} needed"
    return None


def _count(names: np.ndarray) -> int:
    return len(np.unique(names))


def _draws(groups: int, seed: int) -> Iterator[np.ndarray]:
    """How often each group is drawn, in pieces of (resamples, groups)."""
    rng = np.random.default_rng(seed)
    for _ in range(_RESAMPLES // _AT_ONCE):
        yield rng.multinomial(groups, np.full(groups, 1 / groups), size=_AT_ONCE)


def _interval(value: float, drawn: np.ndarray, groups: int, level: float) -> Estimate:
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    wider = float(np.sqrt(groups / (groups - 1)))
    return Estimate(value, value - (value - float(low)) * wider, value + (float(high) - value) * wider)
