"""Laws every registered strategy must keep. A new strategy is tested here by being registered."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from strategies import DEFAULT, Pool, get, names
from strategies.errors import BadDraws, BadPool, BadRequest, BadScores, NotScored, UnknownStrategy

SCORING = [name for name in names() if "scores" in get(name).needs]
EMBEDDING = [name for name in names() if "embeddings" in get(name).needs]
MEETING_LABELS = [name for name in names() if "labelled_embeddings" in get(name).needs]
DETERMINISTIC = ["bald", "core_set", "entropy"]  # no chance at all: ties go to the lower position
MONOTONE = ["bald", "clasp_pe", "entropy", "power_bald", "stochastic_batches"]  # one score raised, never later

CLUSTERING = ["hybrid", "typiclust"]  # milliseconds each: tried fewer times

# Every strategy, and the default twice, as it does one thing at the first query and another later.
WAYS = [(name, 1) for name in names()] + [(DEFAULT, 0)]
# What no chance decides between images that are all alike.
TIES_TO_THE_LOWER = [(name, 1) for name in (*DETERMINISTIC, "typiclust")] + [(DEFAULT, 0)]


def ways(of: Iterable[str] | None = None, *, without: Iterable[tuple[str, int]] = ()) -> pytest.MarkDecorator:
    chosen = [way for way in WAYS if way not in without and (of is None or way[0] in of)]
    return pytest.mark.parametrize("way", chosen, ids=[f"{name}-{number}" for name, number in chosen])


def select(way: tuple[str, int], pool: Pool, size: int, rng: np.random.Generator | int = 0) -> np.ndarray:
    return get(way[0]).select(pool, size, np.random.default_rng(rng), round_number=way[1])


def check(positions: np.ndarray, n: int, size: int) -> None:
    assert positions.dtype == np.intp
    assert positions.shape == (min(size, n),), "asking for more than there is ranks all"
    assert len(np.unique(positions)) == len(positions)
    assert not len(positions) or (positions.min() >= 0 and positions.max() < n)


def make_pool(n: int, seed: int = 0) -> Pool:
    rng = np.random.default_rng(seed)
    return Pool(
        scores=rng.permutation(n) / max(n, 1),
        embeddings=rng.normal(size=(n, 5)),
        labelled_embeddings=rng.normal(size=(4, 5)),
        groups=np.array([f"g{i // 3}" for i in range(n)], dtype=str),
        strata=rng.integers(-1, 3, size=n),
    )


def all_alike(n: int) -> Pool:
    return Pool(
        scores=np.full(n, 0.1),
        embeddings=np.full((n, 7), 0.1),
        labelled_embeddings=np.full((1, 7), 0.3),
        groups=np.array(["g"] * n),
        strata=np.zeros(n, dtype=int),
    )


def reordered(pool: Pool, order: np.ndarray) -> Pool:
    assert pool.scores is not None and pool.embeddings is not None
    assert pool.groups is not None and pool.strata is not None
    return replace(
        pool,
        scores=pool.scores[order],
        embeddings=pool.embeddings[order],
        groups=pool.groups[order],
        strata=pool.strata[order],
    )


def arrays(pool: Pool) -> list[np.ndarray]:
    return [array for array in vars(pool).values() if array is not None]


@ways()
@pytest.mark.parametrize(("n", "size"), [(1, 1), (7, 3), (30, 30), (30, 0), (0, 0), (0, 5), (6, 20)])
def test_positions_are_unique_in_range_and_as_many_as_asked_for(way: tuple[str, int], n: int, size: int) -> None:
    check(select(way, make_pool(n), size), n, size)


@ways()
def test_same_seed_same_answer(way: tuple[str, int]) -> None:
    np.testing.assert_array_equal(select(way, make_pool(40), 12, 3), select(way, make_pool(40), 12, 3))


@ways(without=[(name, 1) for name in DETERMINISTIC])
def test_another_seed_another_answer(way: tuple[str, int]) -> None:
    answers = {tuple(select(way, make_pool(40), 12, seed).tolist()) for seed in range(6)}
    assert len(answers) > 1


@ways()
def test_inputs_are_untouched(way: tuple[str, int]) -> None:
    pool = make_pool(25)
    before = [array.copy() for array in arrays(pool)]
    for array in arrays(pool):
        array.flags.writeable = False
    select(way, pool, 10)
    for array, copy in zip(arrays(pool), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@ways()
def test_single_precision_embeddings_are_untouched_too(way: tuple[str, int]) -> None:
    pool = make_pool(25)
    assert pool.embeddings is not None and pool.labelled_embeddings is not None
    pool = replace(
        pool,
        embeddings=pool.embeddings.astype(np.float32),
        labelled_embeddings=pool.labelled_embeddings.astype(np.float32),
    )
    before = [array.copy() for array in arrays(pool)]
    select(way, pool, 10)
    for array, copy in zip(arrays(pool), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@ways(DETERMINISTIC)
@pytest.mark.parametrize("labels", [0, 4])
def test_permuting_the_pool_permutes_the_answer(way: tuple[str, int], labels: int) -> None:
    pool, order = make_pool(40), np.random.default_rng(9).permutation(40)
    assert pool.labelled_embeddings is not None
    pool = replace(pool, labelled_embeddings=pool.labelled_embeddings[:labels])
    np.testing.assert_array_equal(order[select(way, reordered(pool, order), 15, 2)], select(way, pool, 15, 1))


@ways(without=[(name, 1) for name in DETERMINISTIC])
def test_an_image_is_asked_for_as_often_wherever_it_stands_in_the_pool(way: tuple[str, int]) -> None:
    # Clusters of two are avoided: each is as typical as the other, and that tie goes to the lower position.
    n, size, trials = 24, 2, 60 if way[0] in CLUSTERING else 300
    pool, order = make_pool(n, seed=4), np.random.default_rng(9).permutation(n)
    pool = replace(pool, labelled_embeddings=np.empty((0, 5)))
    shuffled_pool, rng = reordered(pool, order), np.random.default_rng(1)
    straight, shuffled = np.zeros(n), np.zeros(n)
    for _ in range(trials):
        straight[select(way, pool, size, rng)] += 1
        shuffled[order[select(way, shuffled_pool, size, rng)]] += 1
    share = (straight + shuffled) / (2 * trials)
    assert (np.abs(straight - shuffled) <= 5 * np.sqrt(2 * trials * share * (1 - share)) + 1).all()


@ways(without=TIES_TO_THE_LOWER)
def test_among_equal_images_no_position_is_favoured(way: tuple[str, int]) -> None:
    n, size, trials = 8, 3, 150 if way[0] in CLUSTERING else 800
    pool, rng = all_alike(n), np.random.default_rng(5)
    answers = np.array([select(way, pool, size, rng) for _ in range(trials)])
    deviation = 5 * np.sqrt(trials / n * (1 - 1 / n))  # five standard errors per cell, 24 cells
    for rank in range(size):
        counts = np.bincount(answers[:, rank], minlength=n)
        assert np.abs(counts - trials / n).max() < deviation, f"rank {rank}: {counts}"


@pytest.mark.parametrize("way", TIES_TO_THE_LOWER, ids=str)
def test_among_equal_images_the_lower_position_goes_first(way: tuple[str, int]) -> None:
    assert select(way, all_alike(30), 6).tolist() == [0, 1, 2, 3, 4, 5]


@ways(MONOTONE)
def test_a_higher_score_is_never_asked_for_later(way: tuple[str, int]) -> None:
    pool = make_pool(20)
    assert pool.scores is not None
    for raised in range(0, 20, 3):
        before = select(way, pool, 20 if way[0] != "stochastic_batches" else 8, raised).tolist()
        scores = pool.scores.copy()
        scores[raised] += 0.3
        after = select(way, replace(pool, scores=scores), len(before), raised).tolist()
        if raised in before:
            assert raised in after and after.index(raised) <= before.index(raised)


# ------------------------------------------------------------------------------------------------- hostile pools
@ways()
def test_every_image_three_times(way: tuple[str, int]) -> None:
    pool, thrice = make_pool(8), np.repeat(np.arange(8), 3)
    check(select(way, reordered(pool, thrice), 20), 24, 20)


@ways()
@pytest.mark.parametrize("size", [5, 12, 50])
def test_all_images_alike(way: tuple[str, int], size: int) -> None:
    check(select(way, all_alike(12), size), 12, size)


@ways()
@pytest.mark.parametrize("none", [np.empty((0, 5)), np.empty(0), []], ids=["(0, 5)", "(0,)", "list"])
def test_nothing_labelled_yet(way: tuple[str, int], none: np.ndarray) -> None:
    check(select(way, replace(make_pool(20), labelled_embeddings=np.asarray(none)), 6), 20, 6)


@ways()
def test_everything_labelled_stands_where_the_pool_does(way: tuple[str, int]) -> None:
    pool = make_pool(20)
    check(select(way, replace(pool, labelled_embeddings=pool.embeddings), 6), 20, 6)


@ways()
def test_an_embedding_of_length_zero(way: tuple[str, int]) -> None:
    pool = make_pool(20)
    assert pool.embeddings is not None
    pool.embeddings[[0, 3, 4]] = 0
    check(select(way, pool, 9), 20, 9)


@ways()
@pytest.mark.parametrize("stratum", [-1, 0, 7])
def test_one_class_only(way: tuple[str, int], stratum: int) -> None:
    check(select(way, replace(make_pool(20), strata=np.full(20, stratum)), 6), 20, 6)


@ways(SCORING)
def test_scores_of_every_size(way: tuple[str, int]) -> None:
    scores = np.array([0.0, 1e-320, 1e-300, 1e-10, 1.0, 1e300, 1e308, 0.0])
    check(select(way, replace(make_pool(8), scores=scores), 5), 8, 5)


@cache
def million() -> Pool:
    n, rng = 10**6, np.random.default_rng(0)
    return Pool(
        scores=rng.random(n),
        embeddings=rng.normal(size=(n, 4)).astype(np.float32),
        labelled_embeddings=rng.normal(size=(5, 4)).astype(np.float32),
        groups=(np.arange(n) // 50).astype("U6"),
        strata=rng.integers(-1, 3, size=n),
    )


@ways()
def test_a_million_images(way: tuple[str, int]) -> None:
    """Anything that grows with the square of the pool would run into the time or the memory there is."""
    check(select(way, million(), 10), 10**6, 10)


# ------------------------------------------------------------------------------------------- what is refused, and how
@pytest.mark.parametrize("name", names())
def test_a_negative_size_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="-1"):
        get(name).select(make_pool(5), -1, np.random.default_rng(0))


@ways(SCORING)
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_by_position(way: tuple[str, int], broken: float) -> None:
    pool = make_pool(20)
    assert pool.scores is not None
    pool.scores[[3, 17]] = broken
    with pytest.raises(BadScores, match=r"positions 3, 17;"):
        select(way, pool, 5)


@ways(EMBEDDING)
@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e200])
def test_embeddings_that_are_not_finite_are_refused_by_position(way: tuple[str, int], broken: float) -> None:
    pool = make_pool(20)
    assert pool.embeddings is not None
    pool.embeddings[[3, 17], 2] = broken
    with pytest.raises(BadPool, match=r"^embeddings .* positions 3, 17;"):
        select(way, pool, 5)


@ways(MEETING_LABELS)
def test_broken_embeddings_of_labelled_images_are_told_from_those_of_the_pool(way: tuple[str, int]) -> None:
    pool = make_pool(20)
    assert pool.labelled_embeddings is not None
    pool.labelled_embeddings[2, 0] = np.nan
    with pytest.raises(BadPool, match=r"among the labelled images, .* positions 2;"):
        select(way, pool, 5)


@ways(MEETING_LABELS)
def test_embeddings_of_two_widths_are_refused(way: tuple[str, int]) -> None:
    with pytest.raises(BadPool, match=r"5 wide, those of the labelled images 6; compute both with one model version"):
        select(way, replace(make_pool(20), labelled_embeddings=np.zeros((3, 6))), 5)


@ways(EMBEDDING)
def test_embeddings_of_one_dimension_are_refused(way: tuple[str, int]) -> None:
    with pytest.raises(BadPool, match=r"\(20,\)"):
        select(way, replace(make_pool(20), embeddings=np.zeros(20)), 5)


@ways([name for name in names() if "strata" in get(name).needs])
@pytest.mark.parametrize(
    ("strata", "said"),
    [(np.full(20, -2), r"below -1 at positions 0, 1, .* 9 and 10 more"), (np.zeros(20), "whole numbers")],
)
def test_strata_that_are_no_classes_are_refused(way: tuple[str, int], strata: np.ndarray, said: str) -> None:
    with pytest.raises(BadPool, match=said):
        select(way, replace(make_pool(20), strata=strata), 5)


@ways([name for name in SCORING if name not in DETERMINISTIC and name != "stochastic_batches"])
def test_negative_amounts_of_uncertainty_are_refused_by_position(way: tuple[str, int]) -> None:
    pool = make_pool(20)
    assert pool.scores is not None
    pool.scores[[2, 5]] = -0.1
    with pytest.raises(BadScores, match=r"negative at positions 2, 5;"):
        select(way, pool, 5)


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


@pytest.mark.parametrize("name", names())
def test_a_strategy_that_scores_says_what_its_scores_measure(name: str) -> None:
    strategy = get(name)
    assert (strategy.uncertainty is not None) == ("scores" in strategy.needs)


def test_settings_may_stand_in_a_name() -> None:
    named = get("clasp_pe:empty=last:beta=3")
    assert named.name == "clasp_pe:empty=last:beta=3"
    pool = make_pool(40)
    expected = get("clasp_pe").having(empty="last", beta=3).select(pool, 20, np.random.default_rng(1))
    assert named.select(pool, 20, np.random.default_rng(1)).tolist() == expected.tolist()
    assert expected.tolist() != get("clasp_pe").select(pool, 20, np.random.default_rng(1)).tolist()
    assert get("hybrid:empty=as others").name == "hybrid:empty=as others"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("clasp_pe:emtpy=last", "no setting 'emtpy'; it has beta, empty"),
        ("clasp_pe:empty=never", "empty is 'never'"),
        ("clasp_pe:empty", "empty is ''"),
        ("clasp_pe:beta=0", "beta is 0"),
        ("clasp_pe:beta=much", "beta"),
        ("entropy:beta=1", "it has none"),
        ("hybrid:group_share=2", "group_share"),
        ("hybrid:near_duplicate=nan", "near_duplicate"),
        ("stochastic_batches:batches=1.5", "batches"),
        ("clasp_pe:", "no setting ''"),
    ],
)
def test_a_setting_of_no_use_is_refused_before_anything_is_ranked(name: str, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        get(name)
