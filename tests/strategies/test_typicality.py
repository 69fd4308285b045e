"""TypiClust: one per cluster, clusters without labels first, against a slow reference written from the paper."""

import numpy as np
import pytest

from strategies import clusters, typicality
from strategies.clusters import k_means
from strategies.typicality import mean_neighbour_distance, typiclust


def blobs(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points far apart by blob, close within, in an order by chance; and the blob of each."""
    rng = np.random.default_rng(seed)
    centres = 100 * np.eye(len(sizes), 8)
    of = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return centres[of] + rng.normal(size=(len(of), 8)), of


def slow_mean_distance(rows: np.ndarray, neighbours: int = 20) -> list[float]:
    found = []
    for i in range(len(rows)):
        others = sorted(float(np.linalg.norm(rows[i] - rows[j])) for j in range(len(rows)) if j != i)[:neighbours]
        found.append(sum(others) / len(others) if others else 0.0)
    return found


def slow_typiclust(embeddings: np.ndarray, cluster: list[int], of_labelled: list[int], size: int) -> list[int]:
    """Clusters by labels, then size, then number; in turns the most typical image not yet taken, over the cluster."""
    members = {c: [i for i in range(len(embeddings)) if cluster[i] == c] for c in set(cluster)}
    turns = sorted(members, key=lambda c: (of_labelled.count(c), -len(members[c]), c))
    for c, of_cluster in members.items():
        ranked = sorted(zip(slow_mean_distance(embeddings[of_cluster]), of_cluster, strict=True))
        members[c] = [image for _, image in ranked]
    chosen: list[int] = []
    while len(chosen) < min(size, len(embeddings)):
        chosen += [members[c].pop(0) for c in turns if members[c]]
    return chosen[:size]


@pytest.mark.parametrize("n", [1, 2, 15, 60])
def test_typicality_agrees_with_all_pairs(n: int) -> None:
    rows = np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32)
    np.testing.assert_allclose(mean_neighbour_distance(rows), slow_mean_distance(rows), rtol=1e-4, atol=1e-6)


def test_a_twin_is_a_neighbour_and_oneself_is_not() -> None:
    rows = np.array([[0.0], [0.0], [3.0]], dtype=np.float32)
    assert mean_neighbour_distance(rows).tolist() == [1.5, 1.5, 3.0]


def test_the_order_agrees_with_a_slow_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    for _ in range(25):
        n, m, k = int(rng.integers(1, 60)), int(rng.integers(0, 6)), int(rng.integers(1, 7))
        given = rng.integers(0, k, size=n + m)
        monkeypatch.setattr(typicality, "k_means", lambda _rows, _k, _rng, given=given: given)
        embeddings, labelled = rng.normal(size=(n, 5)).astype(np.float32), rng.normal(size=(m, 5))
        size = int(rng.integers(1, n + 4))
        expected = slow_typiclust(embeddings, given[:n].tolist(), given[n:].tolist(), size)
        assert typiclust(embeddings, labelled, size, rng).tolist() == expected


def test_one_image_of_every_cluster_the_largest_first() -> None:
    embeddings, of = blobs([40, 30, 20, 10])
    chosen = typiclust(embeddings, np.empty((0, 8)), 4, np.random.default_rng(0))
    assert of[chosen].tolist() == [0, 1, 2, 3]


def test_clusters_without_a_label_come_first() -> None:
    embeddings, of = blobs([40, 30, 20, 10, 5])
    labelled = embeddings[[np.flatnonzero(of == 0)[0], np.flatnonzero(of == 2)[0]]]
    rest = np.delete(np.arange(len(of)), [np.flatnonzero(of == 0)[0], np.flatnonzero(of == 2)[0]])
    chosen = typiclust(embeddings[rest], labelled, 3, np.random.default_rng(0))
    assert of[rest][chosen].tolist() == [1, 3, 4]


def test_the_chosen_one_is_the_densest_of_its_cluster() -> None:
    embeddings, of = blobs([30, 25, 20], seed=3)
    for position in typiclust(embeddings, np.empty((0, 8)), 3, np.random.default_rng(0)):
        members = np.flatnonzero(of == of[position])
        assert members[np.argmin(slow_mean_distance(embeddings[members]))] == position


def test_of_a_large_cluster_a_part_is_looked_at_and_all_are_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typicality, "CANDIDATES", 50)
    rng = np.random.default_rng(4)
    rows = np.concatenate([0.1 * rng.normal(size=(150, 3)), 10 * rng.normal(size=(50, 3))])
    order = typiclust(rows, np.empty((0, 3)), 1, rng)
    assert order[0] < 150, "in the dense part"
    monkeypatch.setattr(typicality, "MAX_CLUSTERS", 1)
    assert sorted(typiclust(rows, np.empty((0, 3)), 200, rng).tolist()) == list(range(200))


def test_no_more_clusters_than_the_paper_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counting(rows: np.ndarray, k: int, _rng: np.random.Generator) -> np.ndarray:
        asked.append(k)
        return np.arange(len(rows)) % k

    monkeypatch.setattr(typicality, "k_means", counting)
    rng = np.random.default_rng(5)
    for n, m, size in ((2000, 30, 40), (2000, 300, 400), (20, 3, 40)):
        typiclust(rng.normal(size=(n, 2)), rng.normal(size=(m, 2)), size, rng)
    assert asked == [70, 500, 23], "labels + size, at most 500, at most one for each image"


@pytest.mark.parametrize("from_", [0, 10**9], ids=["mini-batches", "exact"])
def test_both_ways_of_clustering_find_what_is_there(from_: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "MINI_BATCHES_FROM", from_)
    embeddings, of = blobs([40, 30, 20])
    found = k_means(embeddings.astype(np.float32), 3, np.random.default_rng(0))
    assert len(set(zip(found.tolist(), of.tolist(), strict=True))) == 3
