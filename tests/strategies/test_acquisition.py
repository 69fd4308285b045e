"""Uncertainty maps against slow references written from the formulas, one pixel at a time."""

import math

import numpy as np
import pytest

from strategies import acquisition
from strategies.errors import BadDraws

LN_2 = math.log(2)


def entropy(p: float) -> float:
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


def slow(draws: np.ndarray) -> dict[str, np.ndarray]:
    n, height, width = draws.shape
    maps = {name: np.empty((height, width)) for name in ("predictive_entropy", "expected_entropy", "bald", "variance")}
    for row in range(height):
        for column in range(width):
            values = [float(draws[draw, row, column]) for draw in range(n)]
            average = sum(values) / n
            maps["predictive_entropy"][row, column] = entropy(average)
            maps["expected_entropy"][row, column] = sum(map(entropy, values)) / n
            maps["bald"][row, column] = entropy(average) - sum(map(entropy, values)) / n
            maps["variance"][row, column] = sum((value - average) ** 2 for value in values) / n
    return maps


@pytest.fixture
def draws() -> np.ndarray:
    values = np.random.default_rng(0).beta(0.4, 0.6, size=(5, 9, 11))
    values[:, 0, 0], values[:, 0, 1] = 0.0, 1.0
    return values


@pytest.mark.parametrize("name", ["predictive_entropy", "expected_entropy", "bald", "variance"])
def test_agrees_with_the_formula(name: str, draws: np.ndarray) -> None:
    np.testing.assert_allclose(getattr(acquisition, name)(draws), slow(draws)[name], atol=1e-12)


def test_hand_computed_pixels() -> None:
    disagreeing, doubting = np.array([[[0.0]], [[1.0]]]), np.array([[[0.5]], [[0.5]]])
    assert acquisition.predictive_entropy(disagreeing) == pytest.approx(LN_2)
    assert acquisition.predictive_entropy(doubting) == pytest.approx(LN_2)
    assert acquisition.bald(disagreeing) == pytest.approx(LN_2), "only disagreement"
    assert acquisition.bald(doubting) == pytest.approx(0), "only shared doubt"
    assert acquisition.variance(disagreeing) == pytest.approx(0.25)


def test_one_draw_carries_no_disagreement(draws: np.ndarray) -> None:
    assert acquisition.bald(draws[:1]).max() < 1e-12
    assert acquisition.variance(draws[:1]).max() == 0


def test_order_of_draws_and_the_name_of_the_class_do_not_matter(draws: np.ndarray) -> None:
    for function in (acquisition.predictive_entropy, acquisition.bald, acquisition.variance):
        np.testing.assert_allclose(function(draws[::-1]), function(draws), atol=1e-12)
        np.testing.assert_allclose(function(1 - draws), function(draws), atol=1e-12)


def test_single_precision_loses_nothing_that_matters(draws: np.ndarray) -> None:
    single = acquisition.predictive_entropy(draws.astype(np.float32))
    np.testing.assert_allclose(single, acquisition.predictive_entropy(draws), atol=1e-6)
    assert single.dtype == np.float64


@pytest.mark.parametrize("shape", [(4, 4), (0, 4, 4), (2, 0, 4), (1, 1, 4, 4)])
def test_wrong_shapes_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadDraws, match=r"shape \("):
        acquisition.predictive_entropy(np.zeros(shape))


def test_logits_are_refused_and_rounding_is_not() -> None:
    with pytest.raises(BadDraws, match="not logits"):
        acquisition.bald(np.full((1, 2, 2), -2.5))
    assert acquisition.predictive_entropy(np.full((1, 2, 2), 1 + 1e-7)).max() == 0
