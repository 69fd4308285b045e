"""Fair shares for classes: an order of images → an order in which every class has its turn."""

from typing import Literal, get_args

import numpy as np

from strategies.checks import checked_strata
from strategies.errors import BadRequest
from strategies.selection import interleave

EMPTY = -1  # the stratum of images without predicted foreground
EMPTY_SHARE = 0.1

Empty = Literal["low", "as others", "last"]


def stratified(order: np.ndarray, strata: np.ndarray, *, empty: Empty = "low") -> np.ndarray:
    """The positions of `order`, classes taking turns: first the best of every class, then the second of every class, …

    order: (k,) positions, best first. strata: (n,) whole numbers, the class of each image of the pool. Within a turn
    the class whose image stands first in `order` goes first. arXiv:2601.13677 stratifies queries by predicted class.
    empty says what becomes of images without predicted foreground (stratum -1): "low" gives them EMPTY_SHARE of the
    places, evenly spread; "as others" treats them as one class among the rest; "last" puts them behind all others.
    """
    if empty not in get_args(Empty):
        raise BadRequest(f"empty is {empty!r}; choose one of {', '.join(get_args(Empty))}")
    ranked = checked_strata(strata)[order]
    if empty == "as others":
        return order[round_robin(ranked)]
    filled, nothing = order[ranked != EMPTY], order[ranked == EMPTY]
    filled = filled[round_robin(ranked[ranked != EMPTY])]
    share = EMPTY_SHARE if empty == "low" else 0.0
    return np.array(interleave(filled.tolist(), nothing.tolist(), share), dtype=np.intp)


def round_robin(strata: np.ndarray) -> np.ndarray:
    """Indices into strata (k,), given best first: the i-th of every class before the (i + 1)-th of any."""
    return np.argsort(place_within(strata), kind="stable")


def place_within(classes: np.ndarray) -> np.ndarray:
    """For every entry of classes (k,), how many equal ones stand before it."""
    together = np.argsort(classes, kind="stable")
    first = np.flatnonzero(np.diff(classes[together], prepend=np.iinfo(np.intp).min))
    place = np.empty(len(classes), dtype=np.intp)
    place[together] = np.arange(len(classes)) - np.repeat(first, np.diff(first, append=len(classes)))
    return place
