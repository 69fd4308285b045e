"""What a query may hold: few of one group, few of one kind, nothing twice. What a cap holds back comes behind."""

from dataclasses import dataclass, field

import numpy as np

from strategies.errors import BadRequest

_BLOCK = 1024  # images looked at together
_ROUNDING = 1e-6  # cosines nearer to 1 than this are equal to it


@dataclass
class Limit:
    """At most `most` images of one value. of: (n,), the number of each image's value; counts: how many are taken."""

    of: np.ndarray
    most: int
    counts: np.ndarray

    @classmethod
    def on(cls, values: np.ndarray, most: int) -> "Limit":
        """A limit on values (n,) of any kind; at least one image of each may always be taken."""
        _, of = np.unique(np.asarray(values), return_inverse=True)
        return cls(of, max(1, most), np.zeros(int(of.max(initial=0)) + 1, dtype=np.intp))

    def room(self, positions: np.ndarray) -> np.ndarray:
        """Whether one more of each of positions (b,) may be taken: (b,) bool."""
        return np.asarray(self.counts[self.of[positions]] < self.most)


@dataclass
class Query:
    """A query of `size` in the making. rows: (n, D), labelled: (m, D), float32; twin: the cosine above which two
    images are one. group and cluster: limits, where there are any.
    """

    rows: np.ndarray
    labelled: np.ndarray
    size: int
    twin: float
    group: Limit | None = None
    cluster: Limit | None = None
    taken: list[int] = field(default_factory=list)

    def filled(self, order: np.ndarray) -> np.ndarray:
        """The first `size` of order (n,), a permutation, that the caps allow; then what they hold back, in its order:
        first what is over the cluster limit only, then over the group limit, then twins, those within their group's
        limit first.
        """
        group = [limit for limit in (self.group,) if limit]
        both = [limit for limit in (self.group, self.cluster) if limit]
        for limits, twins in ((both, False), (group, False), ([], False), (group, True), ([], True)):
            self._fill(order[~np.isin(order, self.taken)], limits, twins)
        return np.array(self.taken, dtype=np.intp)

    def _fill(self, candidates: np.ndarray, limits: list[Limit], twins: bool) -> None:
        for start in range(0, len(candidates), _BLOCK):
            if len(self.taken) == self.size:
                return
            block = candidates[start : start + _BLOCK]
            for limit in limits:
                block = block[limit.room(block)]
            self._fill_from(block, limits, twins)

    def _fill_from(self, block: np.ndarray, limits: list[Limit], twins: bool) -> None:
        """Take what of block (b,) keeps the limits and, unless twins may be, is no twin of what is known or taken."""
        directions, barred = directions_of(self.rows[block]), np.zeros(len(block), dtype=bool)
        if not twins:
            barred = self._is_twin(directions, self.labelled) | self._is_twin(directions, self.rows[self.taken])
        for index, position in enumerate(block.tolist()):
            if len(self.taken) == self.size:
                return
            if barred[index] or not all(limit.room(block[index]) for limit in limits):
                continue
            self._take(position)
            if not twins:
                barred |= directions @ directions[index] > self.twin

    def _take(self, position: int) -> None:
        self.taken.append(position)
        for limit in (self.group, self.cluster):
            if limit:
                limit.counts[limit.of[position]] += 1

    def _is_twin(self, directions: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether each of directions (b, D) is a twin of any of others (m, D)."""
        found = np.zeros(len(directions), dtype=bool)
        for start in range(0, len(others), _BLOCK):
            found |= (directions @ directions_of(others[start : start + _BLOCK]).T > self.twin).any(axis=1)
        return found


def twin_cosine(rows: np.ndarray, similarity: float) -> float:
    """The cosine that is as far above the pool's mean cosine as `similarity` says: 0 is the mean, 1 is identical.

    c̄ + similarity · (1 - c̄), c̄ = mean over pairs i ≠ j of cos(xᵢ, xⱼ) = (‖Σ uᵢ‖² - n) / (n (n - 1)), u of length 1.
    Embeddings of one kind of image fill a narrow cone: cosines of unlike images have a median of 0.94 to 0.98 on four
    sets with the small model here, so a threshold on the bare cosine would call half of all pairs twins.
    """
    if not similarity >= 0.0:
        raise BadRequest(f"near_duplicate is {similarity}; it must be 0 or above, and above 1 nothing is a twin")
    n = len(rows)
    if n < 2:
        return 1.0 - _ROUNDING
    blocks = range(0, n, _BLOCK)
    total = sum(directions_of(rows[start : start + _BLOCK]).sum(axis=0, dtype=np.float64) for start in blocks)
    mean = float((np.square(total).sum() - n) / (n * (n - 1)))
    return min(mean + similarity * (1.0 - mean), 1.0 - _ROUNDING)


def directions_of(rows: np.ndarray) -> np.ndarray:
    """Rows (b, D) of length 1; a row of length 0 stays, and resembles nothing."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0))
