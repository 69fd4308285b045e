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
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    settings = {"n_clusters": k, "n_init": 1, "random_state": int(rng.integers(2**31))}
    model = (
        KMeans(**settings)
        if len(rows) * k < MINI_BATCHES_FROM
        else MiniBatchKMeans(**settings, batch_size=BATCH_ROWS, max_iter=20, compute_labels=False)
    )
    # Threads add their sums to the centres in the order they end; of two the order does not matter, a + b being b + a,
    # but with more a seed would no longer say everything. The seeding's many small products only lose by threads of
    # their own: on a busy machine these wait for each other eight times longer than they work.
    with warnings.catch_warnings(), threadpool_limits({"openmp": 2, "blas": 1}):
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct images than clusters is no accident
        return model.fit(rows).predict(rows).astype(np.intp)
