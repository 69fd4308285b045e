"""Laws every registered strategy must keep. A new strategy is tested here by being registered."""

import numpy as np
import pytest

from strategies import Pool, get, names
from strategies.errors import BadDraws, BadPool, BadRequest, BadScores, NotScored, UnknownStrategy

SCORING = [name for name in names() if "scores" in get(name).needs]
DETERMINISTIC = ["bald", "core_set", "entropy"]  # no chance at all: ties go to the lower position
# Without chance between equal images; the others are exchangeable.
TIES_TO_THE_LOWER = [*DETERMINISTIC, "typiclust"]


def make_pool(n: int, seed: int = 0) -> Pool:
    rng = np.random.default_rng(seed)
    return Pool(
        scores=rng.permutation(n) / max(n, 1),
        embeddings=rng.normal(size=(n, 5)),
        labelled_embeddings=rng.normal(size=(4, 5)),
        groups=np.array([f"g{i // 3}" for i in range(n)], dtype=str),
        strata=rng.integers(0, 3, size=n),
    )


def reordered(pool: Pool, order: np.ndarray) -> Pool:
    assert pool.scores is not None and pool.embeddings is not None
    assert pool.groups is not None and pool.strata is not None
    return Pool(
        scores=pool.scores[order],
        embeddings=pool.embeddings[order],
        labelled_embeddings=pool.labelled_embeddings,
        groups=pool.groups[order],
        strata=pool.strata[order],
    )


def arrays(pool: Pool) -> list[np.ndarray]:
    return [array for array in vars(pool).values() if array is not None]


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize(("n", "size"), [(1, 1), (7, 3), (30, 30), (30, 0), (0, 0), (0, 5), (6, 20)])
def test_positions_are_unique_in_range_and_as_many_as_asked_for(name: str, n: int, size: int) -> None:
    positions = get(name).select(make_pool(n), size, np.random.default_rng(0))
    assert positions.dtype == np.intp
    assert positions.shape == (min(size, n),), "asking for more than there is ranks all"
    assert len(set(positions.tolist())) == len(positions)
    assert all(0 <= position < n for position in positions)


@pytest.mark.parametrize("name", names())
def test_same_seed_same_answer(name: str) -> None:
    first, second = (get(name).select(make_pool(40), 12, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", names())
def test_inputs_are_untouched(name: str) -> None:
    pool = make_pool(25)
    before = [array.copy() for array in arrays(pool)]
    for array in arrays(pool):
        array.flags.writeable = False
    get(name).select(pool, 10, np.random.default_rng(0))
    for array, copy in zip(arrays(pool), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_permuting_the_pool_permutes_the_answer(name: str) -> None:
    pool, order = make_pool(40), np.random.default_rng(9).permutation(40)
    straight = get(name).select(pool, 15, np.random.default_rng(1))
    shuffled = get(name).select(reordered(pool, order), 15, np.random.default_rng(2))
    np.testing.assert_array_equal(order[shuffled], straight)


@pytest.mark.parametrize("name", sorted(set(names()) - set(TIES_TO_THE_LOWER)))
def test_without_deciding_scores_no_position_is_favoured(name: str) -> None:
    n, size, trials = 8, 3, 1500
    pool = Pool(
        scores=np.zeros(n),
        embeddings=np.zeros((n, 2)),
        labelled_embeddings=np.zeros((1, 2)),
        groups=np.array(["g"] * n),
        strata=np.zeros(n, dtype=int),
    )
    rng = np.random.default_rng(5)
    answers = np.array([get(name).select(pool, size, rng, round_number=1) for _ in range(trials)])
    deviation = 5 * np.sqrt(trials / n * (1 - 1 / n))  # five standard errors per cell, 24 cells
    for rank in range(size):
        counts = np.bincount(answers[:, rank], minlength=n)
        assert np.abs(counts - trials / n).max() < deviation, f"rank {rank}: {counts}"


@pytest.mark.parametrize("name", names())
def test_a_negative_size_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="-1"):
        get(name).select(make_pool(5), -1, np.random.default_rng(0))


@pytest.mark.parametrize("name", SCORING)
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_by_position(name: str, broken: float) -> None:
    pool = make_pool(20)
    assert pool.scores is not None
    pool.scores[[3, 17]] = broken
    with pytest.raises(BadScores, match=r"positions 3, 17;"):
        get(name).select(pool, 5, np.random.default_rng(0))


@pytest.mark.parametrize("name", names())
def test_what_a_strategy_needs_it_really_needs(name: str) -> None:
    complete = make_pool(6)
    for need in get(name).needs:
        lacking = Pool(**{**vars(complete), need: None})
        with pytest.raises(BadPool, match=need):
            get(name).select(lacking, 2, np.random.default_rng(0))
    enough = Pool(**{field: vars(complete)[field] for field in {*get(name).needs, "groups"}})
    assert len(get(name).select(enough, 2, np.random.default_rng(0))) == 2


@pytest.mark.parametrize("name", SCORING)
def test_the_uncertain_image_scores_above_the_sure_one(name: str) -> None:
    rng = np.random.default_rng(0)
    sure = np.zeros((6, 40, 40))
    sure[:, 10:25, 10:25] = 1.0
    unsure = np.clip(sure + rng.normal(0, 0.35, size=sure.shape), 0, 1)
    assert get(name).score(unsure) > get(name).score(sure)


@pytest.mark.parametrize("name", SCORING)
@pytest.mark.parametrize("level", [0.0, 1e-7, 0.3, 0.5, 1.0])
def test_every_prediction_has_a_finite_score_even_an_empty_or_a_full_one(name: str, level: float) -> None:
    assert np.isfinite(get(name).score(np.full((4, 32, 24), level, dtype=np.float32)))


@pytest.mark.parametrize("name", SCORING)
@pytest.mark.parametrize("draws", [np.full((2, 4, 4), np.nan), np.full((2, 4, 4), 3.0), np.zeros((4, 4))])
def test_what_are_not_probabilities_is_refused(name: str, draws: np.ndarray) -> None:
    with pytest.raises(BadDraws):
        get(name).score(draws)


@pytest.mark.parametrize("name", sorted(set(names()) - set(SCORING)))
def test_a_strategy_without_scores_says_so(name: str) -> None:
    with pytest.raises(NotScored, match=name):
        get(name).score(np.zeros((1, 4, 4)))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownStrategy, match=r"entropi.*core_set, entropy"):
        get("entropi")


def test_a_pool_whose_arrays_disagree_is_refused() -> None:
    with pytest.raises(BadPool, match=r"scores: 3, groups: 2"):
        Pool(scores=np.zeros(3), groups=np.array(["a", "b"]))
    with pytest.raises(BadPool, match="none given"):
        Pool(labelled_embeddings=np.zeros((2, 2)))
