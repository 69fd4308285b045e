"""What is refused before anything is ranked. Each returns its argument ready to compute with, or says what is wrong."""

import numpy as np

from strategies.errors import BadPool, BadRequest, BadScores


def checked_size(size: int) -> int:
    """The size itself. Raises BadRequest when negative, which a slice would silently take as "all but"."""
    if size < 0:
        raise BadRequest(f"size is {size}; ask for 0 or more")
    return size


def checked_share(share: float, name: str) -> float:
    """A number in [0, 1]. Raises BadRequest, also for NaN."""
    if not 0.0 <= share <= 1.0:
        raise BadRequest(f"{name} is {share}; it must be in [0, 1]")
    return share


def checked_scores(scores: np.ndarray) -> np.ndarray:
    """The scores (n,) as float64. Raises BadScores naming the first ten positions that are not finite."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1:
        raise BadScores(f"scores have shape {scores.shape}; they must be (n,), one per image")
    broken = np.flatnonzero(~np.isfinite(scores))
    if broken.size:
        raise BadScores(f"scores are not finite at positions {_named(broken)}; check the images of those tasks")
    return scores


def checked_amounts(scores: np.ndarray) -> np.ndarray:
    """Scores that are amounts of something, so that a power or a product of them means something: finite, >= 0."""
    scores = checked_scores(scores)
    broken = np.flatnonzero(scores < 0)
    if broken.size:
        raise BadScores(
            f"scores are negative at positions {_named(broken)}; this strategy takes amounts of uncertainty, "
            "such as an entropy or a mutual information"
        )
    return scores


def checked_embeddings(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings (n, D) as float32, without a copy where they are. Raises BadPool naming positions.

    Single precision holds what a network computed in it. A length whose square leaves it is refused with the rest:
    squared lengths need no second matrix of that size, as np.isfinite would.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2:
        raise BadPool(f"embeddings have shape {embeddings.shape}; they must be (n, D), one row per image")
    with np.errstate(over="ignore", invalid="ignore"):
        single = np.ascontiguousarray(embeddings, dtype=np.float32)
        broken = np.flatnonzero(~np.isfinite(np.einsum("ij,ij->i", single, single)))
    if broken.size:
        raise BadPool(
            f"embeddings are not finite, or too large for single precision, at positions {_named(broken)}; "
            "check the images of those tasks"
        )
    return single


def checked_labelled(labelled_embeddings: np.ndarray, width: int) -> np.ndarray:
    """Embeddings (m, D) of the labelled images as float32; none at all is (0, D). Raises BadPool naming positions."""
    if np.size(labelled_embeddings) == 0:
        return np.empty((0, width), dtype=np.float32)
    try:
        labelled = checked_embeddings(labelled_embeddings)
    except BadPool as error:
        raise BadPool(f"among the labelled images, {error}") from error
    if labelled.shape[1] != width:
        raise BadPool(
            f"embeddings are {width} wide, those of the labelled images {labelled.shape[1]}; "
            "compute both with one model version"
        )
    return labelled


def checked_strata(strata: np.ndarray) -> np.ndarray:
    """Strata (n,), whole numbers >= -1, as intp. Raises BadPool naming positions."""
    strata = np.asarray(strata)
    if strata.size == 0:
        return np.empty(0, dtype=np.intp)
    if strata.ndim != 1 or strata.dtype.kind not in "iu":
        raise BadPool(f"strata have shape {strata.shape}, type {strata.dtype}; they must be (n,) whole numbers")
    broken = np.flatnonzero(strata < -1)
    if broken.size:
        raise BadPool(f"strata are below -1 at positions {_named(broken)}; -1 stands for no predicted foreground")
    return strata.astype(np.intp)


def _named(positions: np.ndarray) -> str:
    """The first ten, and how many more there are."""
    named = ", ".join(map(str, positions[:10].tolist()))
    return named + (f" and {positions.size - 10} more" if positions.size > 10 else "")
