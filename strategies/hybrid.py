"""The default: typical images first, then uncertain ones by class, and never many of one kind in a query."""

import math
from dataclasses import dataclass, field

import numpy as np

from strategies.checks import checked_amounts, checked_embeddings, checked_labelled, checked_share, checked_size
from strategies.clusters import k_means
from strategies.power import clasp_pe, decayed_beta
from strategies.strata import Empty
from strategies.typicality import typical_order

GROUP_SHARE = 0.1
NEAR_DUPLICATE = 0.98
DIVERSITY_CLUSTERS = 50
_BLOCK = 1024  # images looked at together


def hybrid(
    scores: np.ndarray,
    embeddings: np.ndarray,
    labelled_embeddings: np.ndarray,
    strata: np.ndarray,
    size: int,
    rng: np.random.Generator,
    *,
    groups: np.ndarray | None = None,
    round_number: int = 0,
    empty: Empty = "low",
    group_share: float = GROUP_SHARE,
    near_duplicate: float = NEAR_DUPLICATE,
) -> np.ndarray:
    """Round 0: the order of `typiclust`; later that of `clasp_pe` with decaying noise. Both under caps.

    Of one group at most max(1, ⌈group_share · size⌉) images; of one k-means cluster (k = min(50, size)) at most
    ⌈2 · size / k⌉, after round 0 only, as typiclust itself goes from cluster to cluster; and none whose cosine
    similarity to a labelled or an already chosen image is above near_duplicate. What a cap holds back follows at the
    end, in its order, when nothing else is left: first images over the cluster cap, then over the group cap, then
    near-duplicates. scores: (n,) >= 0. embeddings: (n, D). labelled_embeddings: (m, D). strata: (n,), -1 without
    predicted foreground. Returns (min(size, n),) intp. No random arm is in here: the caller mixes one in.
    """
    scores, rows = checked_amounts(scores), checked_embeddings(embeddings)
    labelled = checked_labelled(labelled_embeddings, rows.shape[1])
    size = min(checked_size(size), len(rows))
    by_score = clasp_pe(scores, strata, len(rows), rng, beta=decayed_beta(round_number), empty=empty)
    if size == 0:
        return np.empty(0, dtype=np.intp)
    caps = Caps(rows, labelled, near_duplicate)
    if groups is not None:
        caps.limit("group", groups, math.ceil(checked_share(group_share, "group_share") * size))
    if round_number == 0:
        return caps.obeyed(typical_order(rows, labelled, size, rng, at_least=len(rows)), size)
    k = min(DIVERSITY_CLUSTERS, size)
    caps.limit("cluster", k_means(rows, k, rng), math.ceil(2 * size / k))
    return caps.obeyed(by_score, size)


@dataclass
class Caps:
    """What a query may hold. rows: (n, D), labelled: (m, D), float32; near_duplicate: cosine similarity."""

    rows: np.ndarray
    labelled: np.ndarray
    near_duplicate: float
    limits: dict[str, tuple[np.ndarray, int]] = field(default_factory=dict)  # kind → number of each image, most of one

    def limit(self, kind: str, values: np.ndarray, most: int) -> None:
        """At most `most` images, or one, of each value. values: (n,)."""
        self.limits[kind] = (np.unique(np.asarray(values), return_inverse=True)[1], max(1, most))

    def obeyed(self, order: np.ndarray, size: int) -> np.ndarray:
        """The first `size` of order (n,), a permutation, that the caps allow; then, fewest caps broken, the others."""
        chosen, limits = np.empty(0, dtype=np.intp), dict(self.limits)
        for loosened in ("", "cluster", "group"):
            if loosened in self.limits or not loosened:
                limits.pop(loosened, None)
                chosen = self._extended(chosen, order, size, list(limits.values()))
        rest = order[~np.isin(order, chosen)]
        return np.concatenate([chosen, rest])[:size]

    def _extended(
        self, chosen: np.ndarray, order: np.ndarray, size: int, limits: list[tuple[np.ndarray, int]]
    ) -> np.ndarray:
        """chosen, and after it what of order keeps these limits and resembles nothing labelled or chosen."""
        taken = chosen.tolist()
        counts = [np.bincount(kind[chosen], minlength=int(kind.max()) + 1) for kind, _ in limits]
        candidates = order[~np.isin(order, chosen)]
        for start in range(0, len(candidates), _BLOCK):
            if len(taken) == size:
                break
            self._take(candidates[start : start + _BLOCK], taken, size, limits, counts)
        return np.array(taken, dtype=np.intp)

    def _take(
        self,
        block: np.ndarray,
        taken: list[int],
        size: int,
        limits: list[tuple[np.ndarray, int]],
        counts: list[np.ndarray],
    ) -> None:
        """Append to taken what of the block is allowed, in order, until there are size."""
        block = block[_within(block, limits, counts)]
        directions = _directions(self.rows[block])
        alike = self._like(directions, self.labelled) | self._like(directions, self.rows[taken])
        for index, position in enumerate(block.tolist()):
            if alike[index] or not _within(block[index : index + 1], limits, counts)[0]:
                continue
            taken.append(position)
            if len(taken) == size:
                return
            for (kind, _), count in zip(limits, counts, strict=True):
                count[kind[position]] += 1
            alike |= directions @ directions[index] > self.near_duplicate

    def _like(self, directions: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether each of directions (b, D) is a near-duplicate of any of others (m, D)."""
        alike = np.zeros(len(directions), dtype=bool)
        for start in range(0, len(others), _BLOCK):
            products = directions @ _directions(others[start : start + _BLOCK]).T
            alike |= (products > self.near_duplicate).any(axis=1)
        return alike


def _within(positions: np.ndarray, limits: list[tuple[np.ndarray, int]], counts: list[np.ndarray]) -> np.ndarray:
    """Whether one more of each position (b,) keeps the limits."""
    allowed = np.ones(len(positions), dtype=bool)
    for (kind, most), count in zip(limits, counts, strict=True):
        allowed &= count[kind[positions]] < most
    return allowed


def _directions(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of length 0 stays, and resembles nothing."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)
