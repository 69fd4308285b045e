"""k-means, by scikit-learn: exact for small pools, on mini-batches for large ones."""

import warnings

import numpy as np

MINI_BATCHES_FROM = 10_000_000  # rows × clusters
BATCH_ROWS = 4096


def k_means(rows: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """The cluster of every row of (n, D) float32: (n,) intp in [0, k), some perhaps empty. 1 <= k <= n.

    Lloyd's algorithm from one k-means++ seeding. From MINI_BATCHES_FROM rows × clusters on mini-batches: a little
    worse, many times faster, as in TypiClust's own code. Chance is one number drawn from rng.
    """
    seed = int(rng.integers(2**31))
    if len(rows) * k < MINI_BATCHES_FROM:
        return _lloyd(rows, k, seed)
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(k, batch_size=BATCH_ROWS, n_init=1, max_iter=20, random_state=seed, compute_labels=False)
    return model.fit(rows).predict(rows).astype(np.intp)


def _lloyd(rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    # Threads add their sums to the centres in the order they end; of two the order does not matter, a + b being b + a,
    # but with more a seed would no longer say everything.
    with warnings.catch_warnings(), threadpool_limits(2, user_api="openmp"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct images than clusters is no accident
        return KMeans(k, n_init=1, random_state=seed).fit(rows).labels_.astype(np.intp)
