"""The bound holds as often as it says, on every kind of data; and it behaves as a bound should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from numpy.typing import NDArray

from evidence.errors import BadFigures, TooFewGroups
from evidence.triage import Bound, Triage, calibrate, least_groups, verdict

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Images:
    """Images in groups: confidence (n,), Dice (n,), groups (n,)."""

    confidence: Numbers
    dice: Numbers
    groups: NDArray[np.intp]


def grouped(sizes: NDArray[np.intp], rng: np.random.Generator) -> tuple[NDArray[np.intp], Numbers]:
    """Groups of images, and for each image how hard its group is, in [0, 1]: larger groups are harder."""
    hard = np.clip(rng.beta(1.5, 3, len(sizes)) + 0.02 * sizes, 0, 1)
    of_image = np.repeat(np.arange(len(sizes)), sizes)
    return of_image, hard[of_image]


def heteroscedastic(n_groups: int, rng: np.random.Generator) -> Images:
    """What the model is less sure of varies more; images of a group share most of their luck."""
    groups, hard = grouped(rng.integers(1, 13, n_groups), rng)
    luck = rng.normal(size=n_groups)[groups] + 0.3 * rng.normal(size=len(groups))
    return Images(np.clip(0.95 - 0.6 * hard, 0, 1), np.clip(0.95 - 0.5 * hard + 0.3 * hard * luck, 0, 1), groups)


def discrete(n_groups: int, rng: np.random.Generator) -> Images:
    """Five confidences, Dice in tenths: ties everywhere."""
    found = heteroscedastic(n_groups, rng)
    return Images(np.round(4 * found.confidence) / 4, np.round(10 * found.dice) / 10, found.groups)


def useless(n_groups: int, rng: np.random.Generator) -> Images:
    """The confidence says nothing, and one group in eight is hopeless."""
    groups, hard = grouped(rng.integers(1, 40, n_groups) ** rng.integers(0, 2, n_groups), rng)
    hopeless = (rng.random(n_groups) < 1 / 8)[groups]
    return Images(rng.random(len(groups)), np.where(hopeless, 0.1 * hard, 1 - 0.3 * hard), groups)


def overconfident(n_groups: int, rng: np.random.Generator) -> Images:
    """The surer the model, the worse it is."""
    groups, hard = grouped(np.full(n_groups, 3), rng)
    return Images(hard, np.clip(1 - hard + 0.1 * rng.normal(size=len(groups)), 0, 1), groups)


def all_equal(n_groups: int, _rng: np.random.Generator) -> Images:
    ones = np.ones(2 * n_groups)
    return Images(ones, ones, np.repeat(np.arange(n_groups), 2))


KINDS: list[Callable[[int, np.random.Generator], Images]] = [
    heteroscedastic, discrete, useless, overconfident, all_equal,
]  # fmt: skip


def covered(images: Images, bound: Bound) -> float:
    """The share of a group's images whose Dice is no less than the bound, on average over groups."""
    holds = images.dice >= bound.of(images.confidence)
    return float((np.bincount(images.groups, holds) / np.bincount(images.groups)).mean())


# ------------------------------------------------------------------------------------------------- how often it holds


@pytest.mark.parametrize("level", [0.8, 0.9])
@pytest.mark.parametrize("n_groups", [9, 15, 60])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bound_holds_at_least_as_often_as_it_says(
    kind: Callable[[int, np.random.Generator], Images], n_groups: int, level: float
) -> None:
    rng = np.random.default_rng(n_groups)
    shares = []
    for _ in range(250):
        seen = kind(n_groups, rng)
        bound = calibrate(seen.confidence, seen.dice, seen.groups, level, rng=rng)
        shares.append(covered(kind(60, rng), bound))
    error = np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) >= level - 3 * error


def test_an_informed_bound_is_worth_having() -> None:
    """Where confidence tells, the bound tells what is sound from what is not; a constant bound would tell neither."""
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(200), 2)
    risk = np.repeat(rng.uniform(0, 0.6, 200), 2)
    dice = 1 - risk * rng.uniform(0.5, 1.2, 400)
    bound = calibrate(1 - risk, dice, groups, rng=rng)
    said = bound.of([1.0, 0.4])
    assert said[0] > 0.9
    assert said[1] < 0.5


# -------------------------------------------------------------------------------------------------- what a bound is


@given(
    some.lists(
        some.tuples(some.floats(0, 1), some.floats(0, 1), some.integers(0, 25)), min_size=9, max_size=60
    ),
    some.sampled_from([0.5, 0.8, 0.9]),
)  # fmt: skip
def test_a_bound_rises_with_confidence_and_never_passes_the_prediction(
    rows: list[tuple[float, float, int]], level: float
) -> None:
    confidence, dice, groups = map(np.array, zip(*rows, strict=True))
    rng = np.random.default_rng(0)
    if len(set(groups)) < least_groups(level):
        with pytest.raises(TooFewGroups, match="annotate more"):
            calibrate(confidence, dice, groups, level, rng=rng)
        return
    bound = calibrate(confidence, dice, groups, level, rng=rng)
    asked = np.linspace(0, 1, 41)
    said = bound.of(asked)
    assert ((said >= 0) & (said <= 1)).all()
    assert (np.diff(said) >= 0).all()
    assert (said <= bound.predicted(asked)).all()


def test_images_in_another_order_and_groups_by_other_names_change_nothing() -> None:
    images = heteroscedastic(40, np.random.default_rng(3))
    order = np.random.default_rng(4).permutation(len(images.dice))
    plain = calibrate(images.confidence, images.dice, images.groups, rng=np.random.default_rng(0))
    names = np.array([f"patient {group:03}" for group in images.groups])
    again = calibrate(images.confidence[order], images.dice[order], names[order], rng=np.random.default_rng(0))
    assert again.of(np.linspace(0, 1, 9)) == pytest.approx(plain.of(np.linspace(0, 1, 9)))


def test_what_fits_the_map_does_not_calibrate() -> None:
    images = overconfident(60, np.random.default_rng(0))
    bound = calibrate(images.confidence, images.dice, images.groups, rng=np.random.default_rng(0))
    assert (bound.n_groups, bound.n_images) == (40, 120)


def test_many_images_of_one_group_count_as_one_group() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(TooFewGroups, match="needs 9 annotated groups, and there are 8"):
        calibrate(np.full(800, 0.9), np.full(800, 0.9), np.repeat(np.arange(8), 100), rng=rng)


def test_one_large_group_that_fails_does_not_decide_alone() -> None:
    """A thousand failures of one group in thirty weigh a thirtieth; counted as images they would be nearly all."""
    confidence = np.full(1029, 0.9)
    dice = np.concatenate([np.full(29, 0.9), np.zeros(1000)])
    groups = np.concatenate([np.arange(29), np.full(1000, 29)])
    bound = calibrate(confidence, dice, groups, level=0.8, rng=np.random.default_rng(0))
    assert bound.of([0.9])[0] > 0.8


@pytest.mark.parametrize(("level", "least"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_a_level_needs_its_number_of_groups(level: float, least: int) -> None:
    assert least_groups(level) == least
    n = np.arange(least) / (least + 1)
    assert calibrate(n, n, np.arange(least), level, rng=np.random.default_rng(0)).n_groups == least


@pytest.mark.parametrize(
    ("confidence", "dice", "groups", "level", "complaint"),
    [
        ([np.nan] * 9, [0.5] * 9, range(9), 0.9, "confidence is not in"),
        ([0.5] * 9, [0.5] * 8 + [1.5], range(9), 0.9, "dice is not in .* positions 8"),
        ([0.5] * 9, [0.5] * 8, range(9), 0.9, "one of each"),
        ([0.5] * 9, [0.5] * 9, range(8), 0.9, "one of each"),
        ([[0.5] * 9], [0.5] * 9, range(9), 0.9, "one row"),
        ([0.5] * 9, [0.5] * 9, range(9), 1.0, "between 0 and 1"),
        ([0.5] * 9, [0.5] * 9, range(9), float("nan"), "between 0 and 1"),
    ],
)
def test_figures_that_are_none_are_named(
    confidence: list[float], dice: list[float], groups: range, level: float, complaint: str
) -> None:
    with pytest.raises(BadFigures, match=complaint):
        calibrate(confidence, dice, list(groups), level, rng=np.random.default_rng(0))


def test_without_a_single_image_there_are_too_few_groups() -> None:
    with pytest.raises(TooFewGroups):
        calibrate([], [], [], rng=np.random.default_rng(0))


# --------------------------------------------------------------------------------------------------- what is to be done


@pytest.mark.parametrize(
    ("bound", "said"),
    [(0.0, "redraw"), (0.49, "redraw"), (0.5, "fix"), (0.89, "fix"), (0.9, "accept-check"), (1.0, "accept-check")],
)
def test_a_bound_becomes_a_verdict(bound: float, said: str) -> None:
    assert verdict(bound) == Triage(said)


@pytest.mark.parametrize(
    ("bound", "accept", "redraw"),
    [(0.5, 0.4, 0.5), (0.5, 1.1, 0.5), (np.nan, 0.9, 0.5), (2, 1, 0)],
)
def test_thresholds_that_cross_and_bounds_that_are_none_are_refused(bound: float, accept: float, redraw: float) -> None:
    with pytest.raises(BadFigures):
        verdict(bound, accept, redraw)
