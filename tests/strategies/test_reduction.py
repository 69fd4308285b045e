"""Reductions against references that walk over pixels, and what happens at the edges: empty, speck, full."""

import math

import numpy as np
import pytest

from strategies import get
from strategies.errors import BadDraws, BadRequest
from strategies.reduction import foreground_and_band, foreground_boundary, mean, mean_of_top


def slow_region(probability: np.ndarray) -> np.ndarray:
    """Every pixel with a foreground pixel within the band, by comparing all pairs."""
    height, width = probability.shape
    reach = max(1, round(0.02 * min(height, width)))
    foreground = [(r, c) for r in range(height) for c in range(width) if probability[r, c] >= 0.5]
    region = np.zeros((height, width), dtype=bool)
    for row in range(height):
        for column in range(width):
            region[row, column] = any(math.hypot(row - r, column - c) <= reach for r, c in foreground)
    return region


def blob(size: int, radius: float, centre: tuple[float, float] | None = None) -> np.ndarray:
    rows, columns = np.mgrid[0:size, 0:size]
    row, column = centre or (size / 2, size / 2)
    return (np.hypot(rows - row, columns - column) <= radius).astype(float)


@pytest.mark.parametrize("shape", [(30, 40), (110, 34), (101, 120)])
def test_region_agrees_with_all_pairs(shape: tuple[int, int]) -> None:
    probability = np.zeros(shape)
    probability[5:9, 3:20] = 0.5
    probability[0, 0] = 0.9
    probability[20:25, 25:30] = 0.49
    np.testing.assert_array_equal(foreground_and_band(probability), slow_region(probability))


def test_the_score_is_the_mean_over_that_region_and_nothing_outside_counts() -> None:
    uncertainty = np.random.default_rng(0).uniform(size=(60, 60))
    probability = blob(60, 12)
    inside = slow_region(probability)
    expected = sum(uncertainty[r, c] for r, c in zip(*np.nonzero(inside), strict=True)) / inside.sum()
    assert foreground_boundary(uncertainty, probability) == pytest.approx(expected)
    assert foreground_boundary(np.where(inside, uncertainty, 99.0), probability) == pytest.approx(expected)


def test_a_larger_lesion_as_uncertain_as_a_small_one_does_not_rank_higher() -> None:
    flat = np.full((100, 100), 0.3)
    assert foreground_boundary(flat, blob(100, 40)) == pytest.approx(foreground_boundary(flat, blob(100, 10)))


def test_the_place_of_a_lesion_does_not_matter() -> None:
    def shifted(by: int) -> float:
        ramp = np.abs(np.arange(100)[None] - 40 - by) * np.ones((100, 1))
        return foreground_boundary(ramp, blob(100, 12, (50, 40 + by)))

    assert shifted(0) == pytest.approx(shifted(20))


@pytest.mark.parametrize("probability", [np.zeros((50, 50)), blob(50, 0)], ids=["empty", "speck of one pixel"])
def test_without_a_region_worth_the_name_the_top_of_the_map_counts(probability: np.ndarray) -> None:
    uncertainty = np.random.default_rng(1).uniform(size=(50, 50))
    assert foreground_boundary(uncertainty, probability) == pytest.approx(mean_of_top(uncertainty, 0.02))


def test_what_a_region_too_small_counts_is_a_setting() -> None:
    uncertainty, empty = np.random.default_rng(1).uniform(size=(50, 50)), np.zeros((50, 50))
    assert foreground_boundary(uncertainty, empty, small_region="mean") == pytest.approx(uncertainty.mean())
    assert foreground_boundary(uncertainty, empty, small_region="zero") == 0
    whole = [foreground_boundary(uncertainty, blob(50, 12), small_region=way) for way in ("top", "mean", "zero")]
    assert len(set(whole)) == 1, "a region worth the name is none of its business"
    with pytest.raises(BadRequest, match="choose one of top, mean, zero"):
        foreground_boundary(uncertainty, empty, small_region="none")  # type: ignore[arg-type]


def test_an_empty_prediction_that_nearly_saw_something_ranks_above_a_sure_one() -> None:
    score = get("entropy").score
    nearly, sure = blob(64, 10)[None] * 0.4, np.full((1, 64, 64), 0.01)
    assert score(nearly) > score(sure) > 0


def test_mean_of_top_agrees_with_sorting() -> None:
    uncertainty = np.random.default_rng(2).uniform(size=(7, 11))
    ordered = sorted(uncertainty.ravel().tolist(), reverse=True)
    for share, count in [(1e-9, 1), (0.1, 8), (0.5, 39), (1.0, 77)]:
        assert mean_of_top(uncertainty, share) == pytest.approx(sum(ordered[:count]) / count)
    assert mean_of_top(uncertainty, 1.0) == pytest.approx(mean(uncertainty))


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, math.nan])
def test_a_share_that_means_nothing_is_refused(share: float) -> None:
    with pytest.raises(BadRequest, match="share"):
        mean_of_top(np.zeros((2, 2)), share)


def test_map_and_probability_of_different_frames_are_refused() -> None:
    with pytest.raises(BadDraws, match="different frames"):
        foreground_boundary(np.zeros((4, 4)), np.zeros((8, 8)))
