"""The two random baselines against exact probabilities."""

import itertools

import numpy as np
import pytest

from strategies import Pool, get
from strategies.chance import foreground_random, random
from tests.strategies.chances import follows


def group_first(groups: list[str]) -> dict[tuple[int, ...], float]:
    """Probability of every order when each step draws a group that has images left, then one of them."""
    found = {}
    for order in itertools.permutations(range(len(groups))):
        probability, left = 1.0, set(range(len(groups)))
        for image in order:
            of_group = [other for other in left if groups[other] == groups[image]]
            probability /= len({groups[other] for other in left}) * len(of_group)
            left.remove(image)
        found[order] = probability
    return found


@pytest.mark.parametrize("groups", [["a", "b", "b", "b"], ["b", "a", "b", "c"], ["a"] * 4, list("abcd")])
def test_random_is_uniform_over_groups_then_over_their_images(groups: list[str]) -> None:
    rng = np.random.default_rng(0)
    follows(lambda: tuple(random(4, 4, rng, groups=np.array(groups)).tolist()), group_first(groups), 4000)


def test_random_without_groups_is_uniform_over_images() -> None:
    rng, expected = np.random.default_rng(1), dict.fromkeys(itertools.permutations(range(4), 2), 1 / 12)
    follows(lambda: tuple(random(4, 2, rng).tolist()), expected, 2000)


def test_the_strategy_uses_groups_when_it_has_them() -> None:
    rng, groups = np.random.default_rng(2), np.array(["video"] * 99 + ["photo"])
    pool = Pool(groups=groups)
    follows(lambda: int(get("random").select(pool, 1, rng)[0]) == 99, {True: 0.5, False: 0.5}, 400)


def test_two_thirds_of_every_prefix_come_from_the_foreground_part() -> None:
    rng = np.random.default_rng(3)
    strata = rng.permutation(np.repeat([-1, 0, 1, 2], [600, 300, 60, 40]))
    order = foreground_random(strata, 90, rng)
    # A place of the foreground part is never empty; of the uniform third some are, as in the pool.
    foreground = [place for place in range(90) if place % 3 != 1]
    assert (strata[order[foreground]] >= 0).all()
    counts = np.bincount(strata[order[foreground]], minlength=3)
    assert counts.tolist() == [20, 20, 20], "evenly over classes, rare as they may be"


def test_the_uniform_third_is_uniform_over_the_whole_pool() -> None:
    rng, strata = np.random.default_rng(4), np.array([-1, -1, -1, 0, 1])
    expected = dict.fromkeys(range(5), 0.2)
    follows(lambda: int(foreground_random(strata, 3, rng)[1]), expected, 1500)


def test_foreground_that_runs_out_is_followed_by_the_rest() -> None:
    strata = np.array([-1, 0, -1, -1, 0, -1])
    order = foreground_random(strata, 6, np.random.default_rng(5))
    assert sorted(order.tolist()) == list(range(6))
    only = foreground_random(np.full(6, -1), 4, np.random.default_rng(5))
    assert len(set(only.tolist())) == 4
    assert sorted(foreground_random(np.zeros(4, dtype=int), 4, np.random.default_rng(5)).tolist()) == [0, 1, 2, 3]


def test_within_a_class_groups_are_met_alike() -> None:
    rng, groups = np.random.default_rng(6), np.array(["video"] * 30 + ["photo"])
    strata = np.zeros(31, dtype=int)
    follows(lambda: int(foreground_random(strata, 1, rng, groups=groups)[0]) == 30, {True: 0.5, False: 0.5}, 400)
