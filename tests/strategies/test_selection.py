"""Ranking and mixing."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import interleave
from strategies.chance import random
from strategies.errors import BadRequest, BadScores
from strategies.selection import stochastic_batches, top_k
from tests.strategies.chances import follows


@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(0, 40))
def test_top_k_is_a_stable_descending_sort(scores: list[int], size: int) -> None:
    expected = sorted(range(len(scores)), key=lambda position: (-scores[position], position))[:size]
    assert top_k(np.array(scores), size).tolist() == expected


def test_ties_go_to_the_lower_position() -> None:
    assert top_k(np.array([1.0, 2.0, 1.0, 2.0]), 4).tolist() == [1, 3, 0, 2]


def test_many_broken_scores_are_counted_not_all_listed() -> None:
    with pytest.raises(BadScores, match=r"0, 1, .*9 and 15 more;"):
        top_k(np.full(25, np.nan), 3)


def test_scores_of_two_dimensions_are_refused() -> None:
    with pytest.raises(BadScores, match=r"\(3, 1\)"):
        top_k(np.zeros((3, 1)), 1)


@pytest.mark.parametrize("seed", range(12))
def test_the_best_of_its_batches_is_taken_best_first(seed: int) -> None:
    scores, replay = np.random.default_rng(1).normal(size=30), np.random.default_rng(seed)
    batches = [replay.choice(30, 6, replace=False) for _ in range(4)]
    best = max(batches, key=lambda batch: scores[batch].sum())
    chosen = stochastic_batches(scores, 6, np.random.default_rng(seed), batches=4)
    assert chosen.tolist() == sorted(best.tolist(), key=lambda position: -scores[position])


def test_one_batch_is_chance_and_very_many_are_the_top() -> None:
    scores, rng = np.array([0.1, 0.5, 0.3, 0.2, 0.4]), np.random.default_rng(2)
    follows(
        lambda: tuple(sorted(stochastic_batches(scores, 2, rng, batches=1).tolist())),
        dict.fromkeys(itertools.combinations(range(5), 2), 0.1),
        1000,
    )
    assert stochastic_batches(scores, 2, rng, batches=500).tolist() == [1, 4]


@pytest.mark.parametrize("batches", [0, -3])
def test_no_batches_are_refused(batches: int) -> None:
    with pytest.raises(BadRequest, match="batches"):
        stochastic_batches(np.zeros(3), 1, np.random.default_rng(0), batches=batches)


def test_random_reaches_every_order() -> None:
    rng = np.random.default_rng(0)
    seen = {tuple(random(3, 3, rng).tolist()) for _ in range(200)}
    assert seen == set(itertools.permutations(range(3)))


@given(st.integers(0, 40), st.integers(0, 40), st.floats(0, 1))
def test_interleave_keeps_everything_once_and_in_order(n_main: int, n_extra: int, share: float) -> None:
    main, extra = [("main", i) for i in range(n_main)], [("extra", i) for i in range(n_extra)]
    queue = interleave(main, extra, share)
    assert [item for item in queue if item[0] == "main"] == main
    assert [item for item in queue if item[0] == "extra"] == extra


@given(st.floats(0, 1))
def test_every_prefix_holds_its_share_of_extra(share: float) -> None:
    queue = interleave(["main"] * 200, ["extra"] * 200, share)
    # Both last for 200 places: neither can have been used up before.
    for length in range(201):
        assert abs(queue[:length].count("extra") - share * length) <= 0.5 + 1e-6


def test_the_even_spread_by_hand() -> None:
    assert interleave("abcdefghi", "XY", 0.2) == list("abXcdefYghi")
    assert interleave("ab", "XYZ", 0.5) == list("XaYbZ")
    assert interleave("ab", "XY", 0.0) == list("abXY")
    assert interleave("ab", "XY", 1.0) == list("XYab")


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_means_nothing_is_refused(share: float) -> None:
    with pytest.raises(BadRequest, match="share"):
        interleave("ab", "X", share)
