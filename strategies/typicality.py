"""Selection by typicality: when little is labelled, ask for what there is much of."""

import numpy as np

from strategies.checks import checked_embeddings, checked_labelled, checked_size
from strategies.clusters import k_means
from strategies.strata import place_within

MAX_CLUSTERS = 500
NEIGHBOURS = 20
CANDIDATES = 4096  # images of a cluster that are looked at


def typiclust(
    embeddings: np.ndarray, labelled_embeddings: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """The most typical image of every cluster, clusters without a label first, the largest of them first.

    k-means with min(m + size, 500) clusters over pool and labelled images together. embeddings: (n, D).
    labelled_embeddings: (m, D). Returns (min(size, n),) intp. When clusters run out, the second most typical image of
    each follows, and so on. Hacohen et al. 2022 (arXiv:2202.02794), algorithm 1 (TPC_RP). Raises BadPool.
    """
    return typical_order(embeddings, labelled_embeddings, checked_size(size), rng, at_least=size)[:size]


def typical_order(
    embeddings: np.ndarray, labelled_embeddings: np.ndarray, size: int, rng: np.random.Generator, *, at_least: int
) -> np.ndarray:
    """typiclust's order for a query of `size`, going on for at least `at_least` images (or all) instead of size."""
    rows = checked_embeddings(embeddings)
    labelled = checked_labelled(labelled_embeddings, rows.shape[1])
    if size == 0 or len(rows) == 0:
        return np.empty(0, dtype=np.intp)
    everything = np.concatenate([rows, labelled]) if len(labelled) else rows
    cluster = k_means(everything, min(len(labelled) + size, MAX_CLUSTERS, len(everything)), rng)
    turns = _in_turns(cluster[: len(rows)], cluster[len(rows) :], at_least)
    ranked = np.concatenate([_most_typical(rows, members, rng) for members in turns])
    place = place_within(cluster[ranked])
    return ranked[np.argsort(place, kind="stable")]


def _in_turns(cluster: np.ndarray, of_labelled: np.ndarray, at_least: int) -> list[np.ndarray]:
    """Members of each cluster that has a turn: fewest labels first, then most images, then the lowest number."""
    sizes = np.bincount(cluster)
    labels = np.bincount(of_labelled, minlength=len(sizes))[: len(sizes)]
    turns = np.lexsort((-sizes, labels))
    turns = turns[sizes[turns] > 0][:at_least]
    together = np.split(np.argsort(cluster, kind="stable"), np.cumsum(sizes)[:-1])
    return [together[number] for number in turns]


def _most_typical(rows: np.ndarray, members: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The members (c,), ascending positions in rows (n, D), most typical first; ties go to the lower position.

    Of more than CANDIDATES members a random part stands for all, both as candidates and as neighbours: the densest
    place of the part is dense in the whole, and time no longer grows with c². The others follow in an order by chance.
    """
    shuffled = rng.permutation(members) if len(members) > CANDIDATES else members
    candidates, others = np.sort(shuffled[:CANDIDATES]), shuffled[CANDIDATES:]
    distance = mean_neighbour_distance(rows[candidates])
    return np.concatenate([candidates[np.argsort(distance, kind="stable")], others])


def mean_neighbour_distance(rows: np.ndarray) -> np.ndarray:
    """Mean distance of each row of (c, D) to its 20 nearest others, or to all when fewer: (c,), 1 / typicality.

    1 / typicality(x) = mean over the K nearest of ‖x - xᵢ‖. Hacohen et al. 2022, eq. 4.
    """
    if len(rows) == 1:
        return np.zeros(1)
    from sklearn.neighbors import NearestNeighbors

    k = min(NEIGHBOURS, len(rows) - 1)
    distances, _ = NearestNeighbors(n_neighbors=k).fit(rows).kneighbors()  # of the fitted rows, none its own neighbour
    return np.asarray(distances.mean(axis=1))
