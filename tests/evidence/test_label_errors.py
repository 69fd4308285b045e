"""What is suspect is what a model contradicts more than it usually does, not what is hard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays

from evidence.errors import BadFigures, TooFewGroups
from evidence.label_errors import disagreement, folds, suspicion, usual

SIDE = 64


def disc(row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.asarray(np.hypot(rows - row, columns - column) < radius)


def soft(mask: np.ndarray, doubt: float) -> np.ndarray:
    """A map that shows the mask, with so much probability on the wrong side."""
    return np.where(mask, 1 - doubt, doubt)


# ------------------------------------------------------------------------------------------------- one annotation


def test_a_mask_that_the_model_is_sure_of_differs_in_nothing() -> None:
    mask = disc(30, 30, 12)
    found = disagreement(mask.astype(float), mask)
    assert (found.excess, found.dice, found.only_model, found.only_person) == (0.0, 1.0, 0.0, 0.0)
    empty = np.zeros((SIDE, SIDE), dtype=bool)
    assert disagreement(empty.astype(float), empty).excess == 0.0


@pytest.mark.parametrize("doubt", [0.02, 0.2, 0.45])
def test_masks_that_the_model_describes_well_differ_as_it_expects(doubt: float) -> None:
    """Each pixel drawn with its own probability: what is expected is taken off, however unsure the model is."""
    rng = np.random.default_rng(0)
    probability = soft(disc(30, 30, 16), doubt)
    excesses = [disagreement(probability, rng.random(probability.shape) < probability).excess for _ in range(300)]
    assert np.mean(excesses) == pytest.approx(0, abs=4 * np.std(excesses) / np.sqrt(300))


@pytest.mark.parametrize(
    "wrong", [np.zeros((SIDE, SIDE), dtype=bool), disc(36, 36, 12), disc(30, 30, 17), disc(12, 50, 9)]
)
def test_a_wrong_mask_stands_out_more_the_surer_the_model_is(wrong: np.ndarray) -> None:
    right = disc(30, 30, 12)
    excesses = [
        disagreement(soft(right, doubt), wrong).excess - disagreement(soft(right, doubt), right).excess
        for doubt in (0.01, 0.1, 0.3)
    ]
    assert excesses[0] > excesses[1] > excesses[2] > 0


@given(arrays(np.float64, (5, 7), elements=some.floats(0, 1)), arrays(bool, (5, 7)))
def test_every_figure_of_an_annotation_is_in_its_range(probability: np.ndarray, mask: np.ndarray) -> None:
    found = disagreement(probability, mask)
    assert -1 <= found.excess <= 1
    assert 0 <= found.dice <= 1
    assert 0 <= found.only_model + found.only_person <= 1
    mirrored = disagreement(probability[::-1, ::-1], mask[::-1, ::-1])
    assert mirrored.excess == pytest.approx(found.excess)


def test_maps_that_are_none_are_refused() -> None:
    mask = disc(30, 30, 12)
    for probability in (np.full((SIDE, SIDE), np.nan), np.full((SIDE, SIDE), 1.5), np.zeros((SIDE, SIDE - 1))):
        with pytest.raises(BadFigures):
            disagreement(probability, mask)
    with pytest.raises(BadFigures, match="bool"):
        disagreement(np.zeros((SIDE, SIDE)), mask.astype(np.uint8))


# ------------------------------------------------------------------------------------------------- many of them


def alone(values: np.ndarray) -> np.ndarray:
    """Every image a group of its own."""
    return np.arange(len(values))


def test_hard_images_are_not_called_errors() -> None:
    """On hard images the model is far off, whoever painted; an error on an easy one is less far off, and is one."""
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0, 1, 200)
    excess = 0.6 * (1 - confidence) * rng.uniform(0.5, 1.5, 200) + 0.01 * rng.normal(size=200)
    easy = np.argsort(-confidence)[5:15]
    excess[easy] = 0.3
    assert len(set(np.argsort(-suspicion(excess, confidence, alone(excess)))[:10]) & set(easy)) >= 9
    assert len(set(np.argsort(-excess)[:10]) & set(easy)) == 0


@given(some.integers(1, 60), some.integers(0, 10**6))
def test_a_score_is_a_share_and_only_the_order_of_confidence_counts(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    excess, confidence = rng.normal(size=n), rng.random(n)
    scores = suspicion(excess, confidence, alone(excess))
    assert ((scores >= 0) & (scores <= 1)).all()
    assert suspicion(excess, confidence**3 + 5, alone(excess)) == pytest.approx(scores)
    order = rng.permutation(n)
    assert suspicion(excess[order], confidence[order], alone(excess)) == pytest.approx(scores[order])


def test_a_patient_whom_the_model_gets_wrong_hides_nobody_s_errors() -> None:
    """It fails on all frames of a third of the videos, alike; one error in every video stands out by a frame."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(30), 10)
    excess = 0.05 * rng.normal(size=300) + np.where(groups % 3 == 0, 0.6, 0.0)
    confidence = rng.random(300)
    wrong = np.arange(0, 300, 10)
    excess[wrong] += 0.35
    first = np.argsort(-suspicion(excess, confidence, groups))[:30]
    assert len(set(first) & set(wrong)) >= 24
    assert len(set(np.argsort(-suspicion(excess, confidence, alone(excess)))[:30]) & set(wrong)) <= 15


def test_the_further_off_the_more_suspect_and_the_usual_is_not() -> None:
    rng = np.random.default_rng(2)
    excess, confidence = 0.1 + 0.02 * rng.normal(size=50), np.full(50, 0.5)
    scores = []
    for value in (0.1, 0.2, 0.4, 0.9):
        excess[7] = value
        scores.append(suspicion(excess, confidence, alone(excess))[7])
    assert scores[0] < 0.3 < scores[1] < scores[2] < scores[3] < 1
    assert usual(excess, confidence) == pytest.approx(np.full(50, 0.1), abs=0.02)


def test_where_all_are_alike_nobody_is_suspect() -> None:
    assert not suspicion(np.full(30, 0.3), np.linspace(0, 1, 30), np.arange(30)).any()
    assert suspicion([], [], []).size == 0
    assert suspicion([0.7], [0.2], ["a"]).tolist() == [0.0]


def test_figures_that_are_none_are_refused() -> None:
    with pytest.raises(BadFigures, match="finite"):
        suspicion([np.nan], [0.5], ["a"])
    with pytest.raises(BadFigures, match="one of each"):
        suspicion([0.1, 0.2], [0.5], ["a", "b"])


# --------------------------------------------------------------------------------------------------------- folds


@given(some.lists(some.integers(0, 12), min_size=1, max_size=80), some.integers(2, 5), some.integers(0, 99))
def test_a_group_is_in_one_fold_and_no_fold_is_empty(groups: list[int], n_folds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    if len(set(groups)) < n_folds:
        with pytest.raises(TooFewGroups, match="annotate more"):
            folds(groups, n_folds, rng=rng)
        return
    found = folds(groups, n_folds, rng=rng)
    assert len(set(zip(groups, found.tolist(), strict=True))) == len(set(groups))
    sizes = np.bincount(found, minlength=n_folds)
    assert sizes.min() > 0
    assert sizes.max() - sizes.min() <= max(groups.count(group) for group in groups)


def test_one_fold_leaves_nothing_to_train_on() -> None:
    with pytest.raises(BadFigures, match="at least 2"):
        folds([1, 2, 3], 1, rng=np.random.default_rng(0))
