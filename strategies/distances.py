"""Squared Euclidean distances in single precision, without a matrix of all pairs."""

import numpy as np

# Squared distances below this share of the squared lengths are rounding: the two stand in one place.
_SAME_PLACE = 4e-6
_CHUNK_ENTRIES = 1 << 22  # of a block of distances: 16 MB


def squared_lengths(rows: np.ndarray) -> np.ndarray:
    """Squared length of every row of (n, D), (n,) float32."""
    return np.einsum("ij,ij->i", rows, rows)


def to_one(rows: np.ndarray, lengths: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Squared distance of every row (n, D), with squared lengths (n,), to one centre (D,). (n,) float32, exact 0s."""
    return _distances(rows @ centre, lengths, float(centre @ centre))


def to_nearest(rows: np.ndarray, lengths: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared distance of every row (n, D) to the nearest of centres (m, D), (n,) float32; infinite when m is 0."""
    nearest = np.full(len(rows), np.inf, dtype=np.float32)
    if len(centres) == 0:
        return nearest
    of_centres = squared_lengths(centres)
    step = max(1, _CHUNK_ENTRIES // len(centres))
    for start in range(0, len(rows), step):
        chunk = slice(start, start + step)
        products = rows[chunk] @ centres.T
        nearest[chunk] = _distances(products, lengths[chunk, None], of_centres).min(axis=1)
    return nearest


def _distances(products: np.ndarray, lengths: np.ndarray, of_centres: np.ndarray | float) -> np.ndarray:
    """|x|² + |c|² - 2 x·c, with what rounding leaves between two equal rows set to 0, so that ties are ties."""
    scale = lengths + of_centres
    squared = scale - 2 * products
    squared[squared < _SAME_PLACE * scale] = 0.0
    return squared
