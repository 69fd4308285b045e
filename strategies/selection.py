"""Scores of a pool → positions, best first. One index space: positions in the pool, never ids.

Every function returns (k,) intp, unique, in [0, n), k = min(size, n): asking for more than there is ranks all.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from strategies.checks import checked_scores, checked_share, checked_size
from strategies.errors import BadRequest

T = TypeVar("T")


def top_k(scores: np.ndarray, size: int) -> np.ndarray:
    """The `size` highest of scores (n,), highest first; ties go to the lower position. Raises BadScores."""
    order = np.argsort(-checked_scores(scores), kind="stable")
    return order.astype(np.intp)[: checked_size(size)]


def stochastic_batches(scores: np.ndarray, size: int, rng: np.random.Generator, *, batches: int = 100) -> np.ndarray:
    """The one of `batches` random batches whose mean score is highest, its highest scores first.

    argmax over b of mean(scores[batch_b]); batches uniform without replacement, ties to the one drawn first, equal
    scores within it in the order drawn. Gaillochet et al. 2023 (arXiv:2301.07670), section 3. Chance keeps the batch
    as varied as the pool, the choice moves it up. Raises BadScores.
    """
    if batches < 1:
        raise BadRequest(f"batches is {batches}; draw 1 or more")
    scores, size = checked_scores(scores), min(checked_size(size), len(scores))
    best = rng.choice(len(scores), size, replace=False)
    for _ in range(batches - 1):
        other = rng.choice(len(scores), size, replace=False)
        if size and scores[other].mean() > scores[best].mean():
            best = other
    return best[np.argsort(-scores[best], kind="stable")].astype(np.intp)


def interleave(main: Sequence[T], extra: Sequence[T], share: float) -> list[T]:
    """One queue of both, each in its own order, with `extra` spread evenly.

    As long as both last, every prefix of length i holds share * i items of `extra`, rounded to the nearest whole (half
    up). When one runs out, the rest of the other follows. Nothing is dropped or compared: pass disjoint sequences.
    """
    checked_share(share, "share")
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
