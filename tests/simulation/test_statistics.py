"""The numbers that compare strategies, by hand and against independent ways to the same."""

import numpy as np
import pytest
from scipy import stats

from simulation.loop import Outcome
from simulation.statistics import area_under, areas, budget_to, difference, holm, penalties


def arm(strategy: str, seed: int, dice: list[float]) -> list[Outcome]:
    return [Outcome(strategy, seed, i, 10 * (i + 1), value, 0.0, 0.0, 0.0, 1.0, 5) for i, value in enumerate(dice)]


def test_area_under_the_curve_by_hand() -> None:
    assert area_under([(10, 0.3), (20, 0.5), (50, 0.9)]) == pytest.approx((10 * 0.4 + 30 * 0.7) / 40)
    assert area_under([(10, 0.7)]) == 0.7
    assert area_under([(0, 0.3), (7, 0.3), (9, 0.3)]) == pytest.approx(0.3)


def test_areas_are_by_strategy_and_seed() -> None:
    found = areas([*arm("a", 0, [0.2, 0.4]), *arm("a", 1, [0.6, 0.6]), *arm("b", 1, [0.0, 1.0])], "dice")
    assert found == {"a": {0: pytest.approx(0.3), 1: pytest.approx(0.6)}, "b": {1: pytest.approx(0.5)}}


def test_only_shared_seeds_are_compared() -> None:
    found = difference({0: 0.5, 1: 0.7, 9: 0.0}, {0: 0.4, 1: 0.5, 8: 1.0})
    assert found is not None and found.mean == pytest.approx(0.15)
    assert difference({0: 0.5}, {1: 0.5}) is None
    alone = difference({0: 0.5}, {0: 0.4})
    assert alone is not None and alone.interval is None and not alone.better and not alone.worse


def test_the_interval_holds_the_truth_about_as_often_as_it_says_with_five_seeds() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(400):
        found = difference(dict(enumerate(rng.normal(0.02, 0.03, 5))), dict.fromkeys(range(5), 0.0), seed=trial)
        assert found is not None and found.interval is not None
        hits += found.interval[0] <= 0.02 <= found.interval[1]
    assert 0.92 <= hits / 400 <= 0.985, "plain percentiles of five would hold it 83 times in 100"


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1.0, 1.0])


def test_holm_rejects_what_stepping_down_rejects() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        p = rng.uniform(0, 0.1, size=6)
        rejected = set()
        for step, at in enumerate(np.argsort(p)):
            if p[at] * (len(p) - step) >= 0.05:
                break
            rejected.add(int(at))
        assert set(np.flatnonzero(holm(p) < 0.05).tolist()) == rejected


def test_a_clear_winner_wins_every_round_after_the_first_and_ties_count_for_nobody() -> None:
    rng = np.random.default_rng(2)
    outcomes = []
    for seed in range(5):
        luck = rng.normal(0, 0.02)
        for name, gain in (("better", 0.2), ("plain", 0.0), ("same", 0.0)):
            jitter = rng.normal(0, 0.01, 3)
            outcomes += arm(name, seed, [0.3, *(0.4 + gain + luck + jitter[1:])])
    names, matrix = penalties(outcomes)
    assert names == ["better", "plain", "same"]
    np.testing.assert_array_equal(matrix, [[0, 2, 2], [0, 0, 0], [0, 0, 0]])


def test_the_penalty_is_a_paired_test() -> None:
    """Luck that all arms of a seed share must not hide a steady difference."""
    lucks = [0.0, 0.3, 0.1, 0.5, 0.2]
    steady = [0.010, 0.012, 0.011, 0.009, 0.010]
    outcomes = [o for s, luck in enumerate(lucks) for o in arm("a", s, [0.1, 0.2 + luck + steady[s]])]
    outcomes += [o for s, luck in enumerate(lucks) for o in arm("b", s, [0.1, 0.2 + luck])]
    assert stats.ttest_ind([0.2 + x for x in lucks], [0.21 + x for x in lucks]).pvalue > 0.9
    assert penalties(outcomes)[1].tolist() == [[0, 1], [0, 0]]


def test_the_budget_lies_on_the_mean_curve() -> None:
    curve = [(10, [0.2, 0.4]), (20, [0.5, 0.5]), (40, [0.7, 0.9])]
    assert budget_to(curve, 0.4) == pytest.approx(15)
    assert budget_to(curve, 0.1) == 10
    assert budget_to(curve, 0.8) == pytest.approx(40)
    assert budget_to(curve, 0.81) is None
