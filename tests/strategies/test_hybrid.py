"""The caps of the default against a slow reference, and that each holds whenever it can."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from strategies import Pool, caps, get
from strategies.caps import Limit, Query, twin_cosine
from strategies.errors import BadRequest
from strategies.hybrid import hybrid

Limits = dict[str, tuple[np.ndarray, int]]


def slow(order: list[int], size: int, alike: np.ndarray, known: np.ndarray, limits: Limits) -> list[int]:
    """One image at a time, one cap after the other let go."""
    chosen: list[int] = []
    for kinds, twins in ((("group", "cluster"), 0), (("group",), 0), ((), 0), (("group",), 1), ((), 1)):
        kept = [limits[kind] for kind in kinds if kind in limits]
        for image in order:
            if len(chosen) == size or image in chosen:
                continue
            full = any(sum(of[other] == of[image] for other in chosen) >= most for of, most in kept)
            twin = known[image] or any(alike[image, other] for other in chosen)
            if not full and (twins or not twin):
                chosen.append(image)
    return chosen


def directions(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [1, 4, 1024])
def test_the_caps_agree_with_a_slow_reference(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caps, "_BLOCK", block)
    rng = np.random.default_rng(0)
    for _ in range(80):
        n, m = int(rng.integers(1, 40)), int(rng.integers(0, 5))
        rows, labelled = (rng.normal(size=(k, 3)).astype(np.float32) for k in (n, m))
        limits = {
            kind: (rng.integers(0, 5, size=n), int(rng.integers(1, 5)))
            for kind in ("group", "cluster")
            if rng.random() < 0.8
        }
        order, size, twin = rng.permutation(n), int(rng.integers(1, n + 1)), rng.choice([0.5, 0.9])
        group, cluster = (Limit.on(*limits[kind]) if kind in limits else None for kind in ("group", "cluster"))
        query = Query(rows, labelled, size, twin, group, cluster)
        alike = directions(rows) @ directions(rows).T > twin
        known = (directions(rows) @ directions(labelled).T > twin).any(axis=1)
        assert query.filled(order).tolist() == slow(order.tolist(), size, alike, known, limits)


@pytest.mark.parametrize("similarity", [0.0, 0.9, 0.995])
def test_likeness_is_measured_from_the_mean_over_pairs(similarity: float) -> None:
    rows = np.random.default_rng(7).normal(size=(30, 6)) + 2
    cosines = directions(rows) @ directions(rows).T
    mean = cosines[np.triu_indices(30, 1)].mean()
    assert twin_cosine(rows, similarity) == pytest.approx(mean + similarity * (1 - mean))


def test_images_in_a_narrow_cone_are_not_all_twins() -> None:
    rng = np.random.default_rng(8)
    cone = 30 + rng.normal(size=(100, 16))  # cosines of 0.999, none alike
    given = replace(pool(100), embeddings=cone, labelled_embeddings=cone[:1])
    narrow = get("hybrid").select(given, 10, np.random.default_rng(9), round_number=1)
    wide = replace(given, embeddings=cone - 30, labelled_embeddings=cone[:1] - 30)
    assert narrow.tolist() == get("hybrid").select(wide, 10, np.random.default_rng(9), round_number=1).tolist()


def pool(n: int = 200, per_group: int = 10, seed: int = 0) -> Pool:
    rng = np.random.default_rng(seed)
    return Pool(
        scores=rng.random(n),
        embeddings=rng.normal(size=(n, 16)),
        labelled_embeddings=rng.normal(size=(5, 16)),
        groups=np.array([f"patient {i // per_group}" for i in range(n)]),
        strata=rng.integers(-1, 3, size=n),
    )


@pytest.mark.parametrize("round_number", [0, 1, 12])
@pytest.mark.parametrize(("size", "share"), [(1, 0.1), (10, 0.1), (20, 0.1), (20, 0.05), (40, 0.2), (15, 0.0)])
def test_no_group_has_more_than_its_share(size: int, share: float, round_number: int) -> None:
    given = pool()
    assert given.groups is not None
    strategy = get("hybrid").having(group_share=share)
    chosen = strategy.select(given, size, np.random.default_rng(1), round_number=round_number)
    _, counts = np.unique(given.groups[chosen], return_counts=True)
    assert counts.max() <= max(1, math.ceil(share * size))


def test_one_group_that_dominates_the_scores_does_not_fill_the_query() -> None:
    given = pool()
    assert given.scores is not None and given.groups is not None
    given.scores[given.groups == "patient 3"] += 1e6
    chosen = get("hybrid").select(given, 20, np.random.default_rng(1), round_number=10)
    assert (given.groups[chosen] == "patient 3").sum() == 2
    free = get("hybrid").having(group_share=1.0).select(given, 20, np.random.default_rng(1), round_number=10)
    assert (given.groups[free] == "patient 3").sum() > 5


@pytest.mark.parametrize("round_number", [0, 1])
def test_near_duplicates_never_stand_in_one_query_unless_nothing_else_is_left(round_number: int) -> None:
    rng = np.random.default_rng(2)
    frames = np.repeat(rng.normal(size=(30, 16)), 4, axis=0) + 0.01 * rng.normal(size=(120, 16))
    given = Pool(
        scores=rng.random(120),
        embeddings=frames,
        labelled_embeddings=frames[:1] * 1.3,
        strata=np.zeros(120, dtype=int),
        groups=np.arange(120).astype(str),
    )
    chosen = get("hybrid").select(given, 29, rng, round_number=round_number) // 4
    assert len(set(chosen.tolist())) == 29
    assert 0 not in chosen, "a labelled image has a twin there"
    more = get("hybrid").select(given, 40, rng, round_number=round_number) // 4
    assert len(set(more[:29].tolist())) == 29, "the twins come behind"


@pytest.mark.parametrize("round_number", [0, 1])
def test_a_pool_of_one_group_or_of_twins_is_ranked_all_the_same(round_number: int) -> None:
    given = pool(30, per_group=30)
    assert sorted(get("hybrid").select(given, 30, np.random.default_rng(3), round_number=round_number)) == [*range(30)]


def test_no_kind_of_image_fills_the_query() -> None:
    rng = np.random.default_rng(4)
    themes = np.repeat(np.arange(10), 40)
    rows = 20 * np.eye(10, 16)[themes] + rng.normal(size=(400, 16))
    scores = np.where(themes == 0, 1e9, 1.0) * rng.random(400)
    strata = np.zeros(400, dtype=int)
    chosen = hybrid(scores, rows, rows[:0], strata, 10, rng, round_number=10, near_duplicate=1.1)
    assert (themes[chosen] == 0).sum() == 2, "ten clusters, ten places: at most two each"


def test_before_any_answer_it_is_typical_images_afterwards_uncertain_ones() -> None:
    rng = np.random.default_rng(5)
    themes, odd = np.repeat([0, 1], 40), 20 * np.eye(4, 8, k=4)
    rows = np.concatenate([200 * np.eye(2, 8)[themes] + rng.normal(size=(80, 8)), 200 * np.eye(1, 8) + odd])
    scores = np.concatenate([np.full(80, 1e-6), np.ones(4)])
    select = partial(hybrid, scores, rows, rows[:0], np.zeros(84, dtype=int), 2, rng, near_duplicate=1.1)
    assert themes[select(round_number=0)].tolist() in ([0, 1], [1, 0])
    assert (select(round_number=10) >= 80).all()


def test_its_noise_decays_with_the_rounds() -> None:
    given, rng = replace(pool(), strata=np.zeros(200, dtype=int)), np.random.default_rng(10)
    assert given.scores is not None
    early, late = (
        np.mean([given.scores[get("hybrid").select(given, 10, rng, round_number=n)].mean() for _ in range(8)])
        for n in (1, 10)
    )
    assert late > early + 0.1


def test_images_predicted_empty_follow_the_setting() -> None:
    given = pool()
    assert given.strata is not None
    last = get("hybrid").having(empty="last").select(given, 60, np.random.default_rng(6), round_number=1)
    assert (given.strata[last] >= 0).all()
    low = get("hybrid").select(given, 60, np.random.default_rng(6), round_number=1)
    assert 1 <= (given.strata[low] == -1).sum() <= 12


def test_a_share_that_means_nothing_is_refused() -> None:
    with pytest.raises(BadRequest, match="group_share"):
        get("hybrid").having(group_share=1.5).select(pool(), 5, np.random.default_rng(0))
