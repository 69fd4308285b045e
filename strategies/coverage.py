"""Selection by spread: images far from everything seen, with or without regard to how unsure the model is.

Every function returns (k,) intp, unique, in [0, n), k = min(size, n). Time O(n · size · D), O(n) numbers of memory.
"""

import numpy as np

from strategies.checks import checked_amounts, checked_embeddings, checked_labelled, checked_size
from strategies.distances import squared_lengths, to_nearest, to_one


def k_center_greedy(embeddings: np.ndarray, labelled_embeddings: np.ndarray, size: int) -> np.ndarray:
    """Again and again the image farthest from its nearest image that is labelled or already chosen.

    u = argmax over i of min over j of ‖xᵢ - xⱼ‖, j labelled or chosen. embeddings: (n, D). labelled_embeddings:
    (m, D). Ties go to the lower position. With no labels the first is the image nearest to the mean. Sener & Savarese
    2018 (arXiv:1708.00489), algorithm 1: at most twice the best possible radius. Raises BadPool.
    """
    rows = checked_embeddings(embeddings)
    labelled = checked_labelled(labelled_embeddings, rows.shape[1])
    size, lengths = min(checked_size(size), len(rows)), squared_lengths(rows)
    chosen = np.empty(size, dtype=np.intp)
    nearest = to_nearest(rows, lengths, labelled)
    for rank in range(size):
        chosen[rank] = _nearest_to_mean(rows, lengths) if rank == len(labelled) == 0 else nearest.argmax()
        np.minimum(nearest, to_one(rows, lengths, rows[chosen[rank]]), out=nearest)
        nearest[chosen[rank]] = -1.0  # below every distance: never again
    return chosen


def badge(embeddings: np.ndarray, scores: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Far apart and uncertain: k-means++ seeding over uncertainty × embedding, a stand-in for the gradient.

    gᵢ = scoreᵢ · xᵢ; each draw takes i with probability ∝ min over c of ‖gᵢ - g_c‖², c chosen or the zero gradient.
    embeddings: (n, D). scores: (n,) >= 0. Ash et al. 2020 (arXiv:1906.03671) take the gradient at the last layer,
    which for cross-entropy is error × feature; that needs a backward pass for every image, this none. They begin with
    the longest gradient; here zero stands among the centres, so an image that would teach nothing is never drawn
    before one that would. What has no distance left is drawn uniformly, last. Raises BadPool, BadScores.
    """
    rows, scores = checked_embeddings(embeddings), checked_amounts(scores)
    # Only the ratio of scores matters, and the largest as 1 cannot leave single precision.
    rows = rows * (scores / max(scores.max(initial=0.0), np.finfo(np.float64).tiny)).astype(np.float32)[:, None]
    size, lengths = min(checked_size(size), len(rows)), squared_lengths(rows)
    chosen, left, weights = np.empty(size, dtype=np.intp), np.ones(len(rows), dtype=bool), lengths.copy()
    for rank in range(size):
        chosen[rank] = _drawn(weights if weights.any() else left, rng)
        np.minimum(weights, to_one(rows, lengths, rows[chosen[rank]]), out=weights)
        weights[chosen[rank]], left[chosen[rank]] = 0.0, False
    return chosen


def _drawn(weights: np.ndarray, rng: np.random.Generator) -> int:
    """One index with probability proportional to its weight."""
    heights = np.cumsum(weights, dtype=np.float64)
    # In (0, total]: an index of weight 0 adds no height, so the first place that reaches it is never one.
    return int(np.searchsorted(heights, (1.0 - rng.random()) * heights[-1]))


def _nearest_to_mean(rows: np.ndarray, lengths: np.ndarray) -> int:
    return int(to_one(rows, lengths, rows.mean(axis=0, dtype=np.float64).astype(np.float32)).argmin())
