"""Laws of adaptive draws: the query of thirty draws for a fifth of the passes, and never by comparing across rungs."""

import itertools

import numpy as np
import pytest

from model import (
    BadConfig,
    BadInput,
    DrawPlan,
    ModelConfig,
    Segmenter,
    Source,
    TrainConfig,
    fine_tune,
    rank_adaptively,
    rank_pool,
)
from model.adaptive import _Shelf
from model.backbones import RANDOM
from strategies import acquisition, reduction
from tests.model.conftest import PROMPT

ALL = DrawPlan(rungs=(30,), passes_per_image=30)


def entropy(draws):
    return reduction.foreground_boundary(acquisition.predictive_entropy(draws), draws.mean(0))


def bald(draws):
    return reduction.mean(acquisition.bald(draws))


class Pool:
    """Images that are nothing but their draws, (n, 30, …), and a record of who asked for which."""

    def __init__(self, draws):
        self.draws, self.asked = draws, []

    def __len__(self):
        return len(self.draws)

    def deal(self, positions, numbers):
        for position in positions:
            self.asked += [(position, number) for number in numbers]
            yield self.draws[position, numbers.start : numbers.stop]

    def rank(self, size, score, plan=None):
        return rank_adaptively(len(self), size, self.deal, score, plan or DrawPlan())


def gaussian_pool(n, spread, seed=0):
    """Draws that scatter about a value of each image; the score is their mean plus what few draws lack."""
    rng = np.random.default_rng(seed)
    return Pool(rng.normal(0, 1, (n, 1)) + rng.normal(0, spread, (n, 30)))


def growing(draws):
    """A score that grows with the number of draws, as entropy does on average."""
    return float(draws.mean()) + 100 * len(draws)


def query(ranking, size):
    return set(ranking.order[:size].tolist())


def full_order(pool, score):
    return np.argsort([-score(draws) for draws in pool.draws], kind="stable")


def faint_disc(seed):
    """As `disc`, some clear and some hardly to be seen, so that images differ in how sure one can be."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:80, :96]
    row, column, radius = rng.uniform(15, 65), rng.uniform(15, 81), rng.uniform(5, 25)
    bright = rng.uniform(0, 90) * (np.hypot(rows - row, columns - column) < radius)
    grey = rng.uniform(30, 110) + bright + rng.normal(0, rng.uniform(3, 40), bright.shape)
    return np.clip(grey, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def discs(examples):
    """A tiny that learnt discs for a few seconds, and 30 draws of pictures it has not seen."""
    start = Segmenter.create(ModelConfig(image_size_px=32), seed=0, source=Source(RANDOM))
    taught = fine_tune(start, examples, TrainConfig(max_steps=80, time_limit_seconds=None))
    taught.rows_per_pass = 128
    pictures = [(faint_disc(i), [PROMPT]) for i in range(120)]
    return taught, pictures, Pool(np.stack([draws[:, 0] for draws in taught.draw(pictures, 30, seed=3)]))


def agreement(pool, score, ask):
    """Share of the query of 30 draws that ask(pool, size) finds, over sizes and over orders the draws may come in."""
    full = full_order(pool, score)
    found = []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(30)
        shuffled = Pool(pool.draws[:, order])
        found += [len(ask(shuffled, size) & set(full[:size].tolist())) / size for size in (6, 12, 24)]
    return np.mean(found)


@pytest.mark.parametrize("score", [entropy, bald])
def test_a_fifth_of_the_passes_asks_for_the_same_images(discs, score):
    _, _, pool = discs

    def ask(shuffled, size):
        ranking = shuffled.rank(size, score)
        assert ranking.passes <= 30 * len(shuffled) / 5
        return query(ranking, size)

    assert agreement(pool, score, ask) >= 0.95


def test_the_same_passes_spread_evenly_find_fewer_of_them(discs):
    _, _, pool = discs
    adaptive = agreement(pool, bald, lambda shuffled, size: query(shuffled.rank(size, bald), size))
    flat = agreement(pool, bald, lambda shuffled, size: query(shuffled.rank(size, bald, DrawPlan((6,))), size))
    assert flat < adaptive - 0.03


def test_a_pool_is_ranked_by_the_draws_of_its_segmenter(discs):
    segmenter, pictures, pool = discs
    segmenter_says = rank_pool(segmenter, pictures.__getitem__, 40, 4, bald, seed=3)
    pool_says = Pool(pool.draws[:40]).rank(4, bald)
    np.testing.assert_array_equal(segmenter_says.n_draws, pool_says.n_draws)
    np.testing.assert_array_equal(segmenter_says.order, pool_says.order)
    np.testing.assert_allclose(segmenter_says.scores, pool_says.scores, atol=1e-6)


def test_of_several_prompts_the_most_uncertain_counts(discs):
    segmenter, pictures, _ = discs
    plan = DrawPlan((3,), 3)
    prompts = [PROMPT, "left kidney"]
    ranking = rank_pool(segmenter, lambda i: (pictures[i][0], prompts), 5, 2, entropy, plan=plan)
    for position, score in enumerate(ranking.scores):
        answers = segmenter.segment_labels([pictures[position][0]], {p: p for p in prompts}, 3)[0]
        assert score == pytest.approx(max(entropy(a.draws) for a in answers.values()), abs=1e-6)


# ------------------------------------------------------------------------------------------------------------- laws
POOLS = [(n, spread, seed) for n in (1, 2, 17, 120) for spread in (0.0, 0.3, 3.0) for seed in (0, 1)]


@pytest.mark.parametrize(("n", "spread", "seed"), POOLS)
def test_one_rung_of_thirty_is_the_full_ranking(n, spread, seed):
    pool = gaussian_pool(n, spread, seed)
    for size in (0, 1, n // 2, n):
        ranking = pool.rank(size, growing, ALL)
        np.testing.assert_array_equal(ranking.order, full_order(pool, growing))
        assert ranking.passes == 30 * n


@pytest.mark.parametrize(("n", "spread", "seed"), POOLS)
def test_what_holds_of_every_ranking(n, spread, seed):
    plans = [
        DrawPlan(),
        DrawPlan((1, 2, 30), 3.5),
        DrawPlan((2,), 2.0),
        DrawPlan((3, 8, 30), 30),
        DrawPlan((4, 5), 4.0),
    ]
    for plan, size in itertools.product(plans, (0, 1, n // 10, n // 2, n, n + 5)):
        pool = gaussian_pool(n, spread, seed)
        ranking = pool.rank(size, growing, plan)
        assert sorted(ranking.order.tolist()) == list(range(n)) and ranking.order.dtype == np.intp
        # Every pass is asked for once, in order, and none is missing; and the budget holds.
        assert sorted(pool.asked) == [(i, k) for i in range(n) for k in range(ranking.n_draws[i])]
        assert ranking.passes == len(pool.asked) <= plan.passes_per_image * n
        assert set(ranking.n_draws.tolist()) <= set(plan.rungs)
        expected = [growing(draws[:k]) for draws, k in zip(pool.draws, ranking.n_draws, strict=True)]
        np.testing.assert_allclose(ranking.scores, expected)
        again = gaussian_pool(n, spread, seed).rank(size, growing, plan)
        np.testing.assert_array_equal(again.order, ranking.order)


@pytest.mark.parametrize("size", [0, 40, 70])
def test_where_nothing_is_cut_nobody_climbs(size):
    ranking = gaussian_pool(40, 3.0).rank(size, growing)
    assert ranking.passes == 2 * 40
    np.testing.assert_array_equal(ranking.order, np.argsort(-ranking.scores, kind="stable"))


def test_an_empty_pool_is_an_empty_ranking():
    ranking = rank_adaptively(0, 3, lambda positions, numbers: [], growing)
    assert ranking.order.shape == ranking.scores.shape == ranking.n_draws.shape == (0,) and ranking.passes == 0


def test_permuting_the_pool_permutes_the_answer():
    pool = gaussian_pool(150, 1.0)
    there = np.random.default_rng(5).permutation(150)
    ranking, permuted = pool.rank(15, growing), Pool(pool.draws[there]).rank(15, growing)
    np.testing.assert_array_equal(there[permuted.order], ranking.order)
    np.testing.assert_array_equal(permuted.n_draws, ranking.n_draws[there])


def test_ties_go_to_the_lower_position():
    pool = Pool(np.zeros((50, 30)))
    ranking = pool.rank(5, growing)
    np.testing.assert_array_equal(ranking.order, np.arange(50))


def test_scores_are_only_compared_at_the_same_number_of_draws():
    """With a score that grows by 100 a draw, whoever climbs would win if rungs were mixed; far losers would too."""
    pool = gaussian_pool(200, 0.5)
    honest, grown = pool.rank(20, lambda draws: float(draws.mean())), pool.rank(20, growing)
    np.testing.assert_array_equal(honest.order, grown.order)
    shrunk = pool.rank(20, lambda draws: float(draws.mean()) - 100 * len(draws))
    np.testing.assert_array_equal(honest.order, shrunk.order)


def test_draws_go_where_the_query_ends():
    for size in (20, 100, 180):
        ranking = gaussian_pool(200, 1.0).rank(size, growing)
        rank = np.argsort(ranking.order)
        most = rank[ranking.n_draws == 30]
        assert len(most) and (np.abs(most - size) <= 25).all()
        far = np.abs(rank - size) > 120
        assert (ranking.n_draws[far] == 2).all()


def test_draws_that_agree_are_not_repeated():
    assert gaussian_pool(500, 1e-6).rank(50, growing).passes <= 2.3 * 500


def test_more_to_spend_finds_more_of_the_query():
    pools = [gaussian_pool(200, 1.0, seed) for seed in range(8)]
    truth = [set(full_order(pool, growing)[:20].tolist()) for pool in pools]

    def found(plan):
        return np.mean([len(query(p.rank(20, growing, plan), 20) & t) / 20 for p, t in zip(pools, truth, strict=True)])

    shares = [found(DrawPlan(passes_per_image=passes)) for passes in (2, 4, 6, 12, 30)]
    assert all(np.diff(shares) > -0.02) and shares[2] > 0.9 and shares[-1] > 0.99
    assert shares[2] > found(DrawPlan((6,))) + 0.1 > shares[0] + 0.1


def test_draws_wait_on_disk_when_memory_is_short():
    pool = gaussian_pool(200, 1.0)
    roomy, tight = pool.rank(20, growing), pool.rank(20, growing, DrawPlan(memory_bytes=100))
    np.testing.assert_array_equal(roomy.order, tight.order)
    np.testing.assert_array_equal(roomy.scores, tight.scores)


def test_a_shelf_gives_back_bit_for_bit():
    rng = np.random.default_rng(0)
    arrays = [rng.random((k + 1, 3, k + 2)).astype(dtype) for k, dtype in enumerate([np.float32, np.float64] * 4)]
    shelf = _Shelf(200)
    for position, array in enumerate(arrays):
        shelf.put(position, array)
        np.testing.assert_array_equal(shelf.get(position // 2), arrays[position // 2])
    for position, array in enumerate(arrays):
        np.testing.assert_array_equal(shelf.get(position), array)
        assert shelf.get(position).dtype == array.dtype
    shelf.close()


def test_progress_goes_up_to_the_passes_made():
    heard = []
    pool = gaussian_pool(60, 1.0)
    ranking = rank_adaptively(60, 6, pool.deal, growing, on_progress=lambda done, most: heard.append((done, most)))
    done = [d for d, _ in heard]
    assert done == sorted(set(done)) and done[-1] == ranking.passes
    assert {most for _, most in heard} == {360} and ranking.passes <= 360


# --------------------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_names_its_position(score):
    pool = Pool(np.arange(10.0)[:, None] + np.zeros((10, 30)))
    with pytest.raises(BadInput, match="position 7"):
        pool.rank(2, lambda draws: score if draws.mean() == 7 else 1.0)


def test_draws_that_went_missing_are_noticed():
    with pytest.raises(BadInput, match="position 0 has 1 draws and should have 2"):
        rank_adaptively(3, 1, lambda positions, numbers: [np.zeros((1, 2, 2))] * 3, growing)
    with pytest.raises(ValueError, match="shorter"):
        rank_adaptively(3, 1, lambda positions, numbers: [np.zeros((2, 2, 2))] * 2, growing)


def test_impossible_sizes_are_refused():
    for n, size in ((-1, 0), (3, -1)):
        with pytest.raises(BadInput, match="0 or more"):
            rank_adaptively(n, size, lambda positions, numbers: [], growing)


@pytest.mark.parametrize(
    "plan",
    [
        {"rungs": ()},
        {"rungs": (0, 3)},
        {"rungs": (3, 3)},
        {"rungs": (8, 3)},
        {"rungs": (8, 30)},
        {"passes_per_image": float("nan")},
        {"memory_bytes": 0},
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(plan):
    with pytest.raises(BadConfig):
        DrawPlan(**plan)
