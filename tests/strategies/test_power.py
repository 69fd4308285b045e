"""Power noise against its exact distribution, and what becomes of classes and of images predicted empty."""

import itertools

import numpy as np
import pytest

from strategies import Pool, get
from strategies.errors import BadRequest
from strategies.power import clasp_pe, decayed_beta, power
from strategies.selection import top_k
from tests.strategies.chances import follows


def without_replacement(weights: list[float], size: int) -> dict[tuple[int, ...], float]:
    """Probability of every ordered draw, each time proportional to the weights left."""
    found = {}
    for order in itertools.permutations(range(len(weights)), size):
        left, probability = sum(weights), 1.0
        for index in order:
            probability *= weights[index] / left
            left -= weights[index]
        found[order] = probability
    return found


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_power_noise_draws_without_replacement_in_proportion_to_a_power_of_the_score(beta: float, scale: float) -> None:
    scores, rng = np.array([0.2, 0.5, 0.9, 0.3]), np.random.default_rng(0)
    expected = without_replacement([float(score**beta) for score in scores], 2)
    follows(lambda: tuple(power(scale * scores, 2, rng, beta=beta).tolist()), expected, 4000)


def test_scores_of_zero_come_last_by_chance() -> None:
    scores, rng = np.array([0.0, 1e-12, 0.0, 5.0]), np.random.default_rng(1)
    expected = {(0, 2): 0.5, (2, 0): 0.5}
    follows(lambda: tuple(power(scores, 4, rng, beta=1.0)[2:].tolist()), expected, 400)


def test_much_beta_is_no_noise() -> None:
    scores = np.random.default_rng(2).random(50)
    np.testing.assert_array_equal(power(scores, 20, np.random.default_rng(0), beta=1e9), top_k(scores, 20))


def test_noise_decays_from_one_to_a_hundred_and_stays() -> None:
    assert [decayed_beta(r) for r in (0, 5, 10, 11, 500)] == pytest.approx([1, 10, 100, 100, 100])
    ratios = [decayed_beta(r + 1) / decayed_beta(r) for r in range(10)]
    assert ratios == pytest.approx([ratios[0]] * 10)


@pytest.mark.parametrize("name", ["power_bald", "clasp_pe"])
def test_the_round_number_reaches_the_noise(name: str) -> None:
    scores = np.linspace(0.1, 1, 30)
    pool = Pool(scores=scores, strata=np.zeros(30, dtype=int))
    best = {
        number: np.mean(
            [scores[get(name).select(pool, 5, np.random.default_rng(i), round_number=number)].mean() for i in range(60)]
        )
        for number in (0, 4, 10)
    }
    assert best[0] < best[4] < best[10]
    assert get(name).having(beta=1e9).select(pool, 5, np.random.default_rng(0)).tolist() == [29, 28, 27, 26, 25]


def test_a_round_or_a_beta_that_means_nothing_is_refused() -> None:
    with pytest.raises(BadRequest, match="-1"):
        decayed_beta(-1)
    for beta in (0.0, -1.0, float("nan")):
        with pytest.raises(BadRequest, match="beta"):
            power(np.ones(3), 1, np.random.default_rng(0), beta=beta)


SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])


def by_class(strata: list[int], **settings: str) -> list[int]:
    rng = np.random.default_rng(0)
    return clasp_pe(SCORES, np.array(strata), 8, rng, beta=1e9, **settings).tolist()  # type: ignore[arg-type]


def test_classes_take_turns_by_hand() -> None:
    assert by_class([5, 5, 5, 5, 2, 2, 0, 5]) == [0, 4, 6, 1, 5, 2, 3, 7]


@pytest.mark.parametrize("round_number", [0, 3])
def test_every_prefix_is_balanced_while_classes_last(round_number: int) -> None:
    rng = np.random.default_rng(3)
    strata = rng.permutation(np.repeat([0, 1, 2], [10, 25, 65]))
    order = get("clasp_pe").select(Pool(scores=rng.random(100), strata=strata), 100, rng, round_number=round_number)
    for length in range(1, 30):
        counts = np.bincount(strata[order[:length]], minlength=3)
        assert counts.max() - counts.min() <= 1
    for stratum in (0, 1, 2):
        assert set(order[strata[order] == stratum].tolist()) == set(np.flatnonzero(strata == stratum).tolist())


def test_what_becomes_of_images_predicted_empty_is_a_setting() -> None:
    strata = [-1, -1, 0, 0, 0, 0, 1, 1]
    assert by_class(strata, empty="last") == [2, 6, 3, 7, 4, 5, 0, 1]
    assert by_class(strata, empty="as others") == [0, 2, 6, 1, 3, 7, 4, 5]
    assert by_class(strata, empty="low") == [2, 6, 3, 7, 0, 4, 5, 1], "the first tenth is due at the fifth place"
    with pytest.raises(BadRequest, match="choose one of low, as others, last"):
        by_class(strata, empty="none")


def test_by_default_one_place_in_ten_is_for_images_predicted_empty() -> None:
    rng = np.random.default_rng(4)
    pool = Pool(scores=rng.random(400), strata=rng.permutation(np.repeat([-1, 0, 1], [200, 100, 100])))
    assert pool.strata is not None
    order = get("clasp_pe").select(pool, 200, rng)
    assert (pool.strata[order] == -1).sum() == 20
    assert (pool.strata[get("clasp_pe").having(empty="last").select(pool, 200, rng)] >= 0).all()


def test_a_pool_predicted_empty_is_still_ranked_by_score() -> None:
    assert by_class([-1] * 8) == list(range(8))
