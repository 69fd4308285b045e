"""Scores of a pool → positions, best first. One index space: positions in the pool, never ids.

Every function returns (k,) intp, unique, in [0, n), k = min(size, n): asking for more than there is ranks all.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from strategies.errors import BadRequest, BadScores

T = TypeVar("T")


def random(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform without replacement over the n images of the pool; the order is uniform as well."""
    return rng.permutation(n).astype(np.intp)[: checked_size(size)]


def top_k(scores: np.ndarray, size: int) -> np.ndarray:
    """The `size` highest of scores (n,), highest first; ties go to the lower position. Raises BadScores."""
    order = np.argsort(-checked_scores(scores), kind="stable")
    return order.astype(np.intp)[: checked_size(size)]


def interleave(main: Sequence[T], extra: Sequence[T], share: float) -> list[T]:
    """One queue of both, each in its own order, with `extra` spread evenly.

    As long as both last, every prefix of length i holds share * i items of `extra`, rounded to the nearest whole (half
    up). When one runs out, the rest of the other follows. Nothing is dropped or compared: pass disjoint sequences.
    """
    if not 0.0 <= share <= 1.0:
        raise BadRequest(f"share is {share}; it must be in [0, 1]")
    queue: list[T] = []
    taken = 0
    while taken < len(extra) and len(queue) - taken < len(main):
        # The small term keeps 0.29 * 50 + 0.5 = 14.999... from losing its whole.
        if int(share * (len(queue) + 1) + 0.5 + 1e-9) > taken:
            queue.append(extra[taken])
            taken += 1
        else:
            queue.append(main[len(queue) - taken])
    return [*queue, *main[len(queue) - taken :], *extra[taken:]]


def checked_size(size: int) -> int:
    """The size itself. Raises BadRequest when negative, which a slice would silently take as "all but"."""
    if size < 0:
        raise BadRequest(f"size is {size}; ask for 0 or more")
    return size


def checked_scores(scores: np.ndarray) -> np.ndarray:
    """The scores (n,) as float64. Raises BadScores naming the first ten positions that are not finite."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1:
        raise BadScores(f"scores have shape {scores.shape}; they must be (n,), one per image")
    broken = np.flatnonzero(~np.isfinite(scores))
    if broken.size:
        named = ", ".join(map(str, broken[:10])) + (f" and {broken.size - 10} more" if broken.size > 10 else "")
        raise BadScores(f"scores are not finite at positions {named}; check the images of those tasks")
    return scores
