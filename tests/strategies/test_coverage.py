"""k-center against brute force, badge against its exact probabilities, distances against all pairs."""

import itertools

import numpy as np
import pytest

from strategies import distances
from strategies.coverage import badge, k_center_greedy
from strategies.distances import squared_lengths, to_nearest, to_one
from tests.strategies.chances import follows


def slow_k_center(embeddings: np.ndarray, labelled: np.ndarray, size: int) -> list[int]:
    """Every distance anew at every step, in double precision, one pair at a time."""
    chosen: list[int] = []
    mean = embeddings.mean(axis=0)
    while len(chosen) < min(size, len(embeddings)):
        centres = [*labelled, *embeddings[chosen]]
        left = [i for i in range(len(embeddings)) if i not in chosen]
        if centres:
            gaps = {i: min(float(np.linalg.norm(embeddings[i] - centre)) for centre in centres) for i in left}
            chosen.append(max(left, key=lambda i: (gaps[i], -i)))
        else:
            chosen.append(min(left, key=lambda i: (float(np.linalg.norm(embeddings[i] - mean)), i)))
    return chosen


def test_k_center_agrees_with_brute_force_on_random_pools() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        n, m, width, size = (int(rng.integers(low, high)) for low, high in ((1, 25), (0, 6), (1, 7), (0, 12)))
        embeddings, labelled = rng.normal(size=(n, width)), rng.normal(size=(m, width))
        assert k_center_greedy(embeddings, labelled, size).tolist() == slow_k_center(embeddings, labelled, size)


def test_k_center_agrees_with_brute_force_where_ties_and_duplicates_abound() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        embeddings = rng.integers(0, 3, size=(14, 2)).astype(float)
        labelled = rng.integers(0, 3, size=(int(rng.integers(1, 3)), 2)).astype(float)
        assert k_center_greedy(embeddings, labelled, 14).tolist() == slow_k_center(embeddings, labelled, 14)


def test_the_radius_is_at_most_twice_the_best_possible() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        embeddings, labelled = rng.normal(size=(9, 2)), rng.normal(size=(1, 2))

        def radius(chosen: tuple[int, ...], pool: np.ndarray = embeddings, known: np.ndarray = labelled) -> float:
            centres = np.concatenate([known, pool[list(chosen)]])
            return float(np.linalg.norm(pool[:, None] - centres[None], axis=2).min(axis=1).max())

        best = min(radius(some) for some in itertools.combinations(range(9), 3))
        assert radius(tuple(k_center_greedy(embeddings, labelled, 3).tolist())) <= 2 * best + 1e-6


def test_moving_or_turning_the_space_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    embeddings, labelled = rng.normal(size=(40, 3)), rng.normal(size=(3, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    moved = k_center_greedy(embeddings @ turn + 5, labelled @ turn + 5, 10)
    assert moved.tolist() == k_center_greedy(embeddings, labelled, 10).tolist()


def test_a_twin_of_a_labelled_image_comes_last_of_all() -> None:
    rng = np.random.default_rng(4)
    embeddings = rng.normal(size=(20, 8)).astype(np.float32)
    order = k_center_greedy(embeddings, embeddings[[2, 5]], 20).tolist()
    assert order[-2:] == [2, 5]


@pytest.mark.parametrize("entries", [1, 7, 10**6])
def test_distances_agree_with_all_pairs_in_chunks_of_any_size(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "_CHUNK_ENTRIES", entries)
    rng = np.random.default_rng(5)
    rows, centres = rng.normal(size=(23, 6)).astype(np.float32), rng.normal(size=(3, 6)).astype(np.float32)
    pairs = ((rows[:, None].astype(float) - centres[None]) ** 2).sum(axis=2)
    lengths = squared_lengths(rows)
    np.testing.assert_allclose(to_nearest(rows, lengths, centres), pairs.min(axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(to_one(rows, lengths, centres[1]), pairs[:, 1], rtol=1e-4, atol=1e-5)
    assert np.isinf(to_nearest(rows, lengths, centres[:0])).all()


def test_equal_rows_are_at_no_distance_however_the_product_rounds() -> None:
    rng = np.random.default_rng(6)
    for width in (7, 100, 513):
        row = rng.normal(size=width).astype(np.float32)
        rows = np.tile(row, (33, 1))
        assert not to_one(rows, squared_lengths(rows), row).any()


def slow_badge(embeddings: np.ndarray, scores: np.ndarray) -> dict[tuple[int, int], float]:
    """Probability of every first and second image, by the formula."""
    gradients = [score * row for score, row in zip(scores, embeddings, strict=True)]
    first = [float(g @ g) for g in gradients]
    found = {}
    for i, j in itertools.permutations(range(len(gradients)), 2):
        second = [min(first[k], float(((g - gradients[i]) ** 2).sum())) for k, g in enumerate(gradients)]
        found[i, j] = first[i] / sum(first) * second[j] / sum(second)
    return found


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_badge_follows_its_exact_probabilities_whatever_the_unit_of_the_scores(scale: float) -> None:
    embeddings = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.2]])
    scores, rng = np.array([0.5, 0.7, 0.4, 0.6]), np.random.default_rng(7)
    expected = slow_badge(embeddings, scores)
    follows(lambda: tuple(badge(embeddings, scale * scores, 2, rng).tolist()), expected, 4000)


def test_the_longest_gradient_is_the_most_probable_first() -> None:
    embeddings, scores, rng = (
        np.array([[1.0, 0.0], [0.0, 3.0], [2.0, 0.0]]),
        np.array([0.4, 0.3, 0.2]),
        np.random.default_rng(8),
    )
    first = [int(badge(embeddings, scores, 1, rng)[0]) for _ in range(500)]
    assert np.bincount(first, minlength=3).argmax() == 1, "lengths 0.4, 0.9 and 0.4"


def test_images_that_would_teach_nothing_come_last() -> None:
    rng = np.random.default_rng(9)
    embeddings, scores = rng.normal(size=(12, 4)), np.repeat([0.0, 0.5], 6)
    for _ in range(20):
        order = badge(embeddings, scores, 12, rng)
        assert set(order[:6].tolist()) == set(range(6, 12))


def test_a_twin_of_a_drawn_image_is_drawn_only_when_nothing_else_is_left() -> None:
    rng = np.random.default_rng(10)
    embeddings = np.repeat(rng.normal(size=(5, 6)), 2, axis=0)
    for _ in range(20):
        order = badge(embeddings, np.ones(10), 10, rng)
        assert set((order[:5] // 2).tolist()) == set(range(5))
        assert sorted(order.tolist()) == list(range(10))
