"""The default: typical images first, then uncertain ones by class, and never many of one kind in a query."""

import math

import numpy as np

from strategies.caps import Limit, Query, twin_cosine
from strategies.checks import checked_amounts, checked_embeddings, checked_labelled, checked_share, checked_size
from strategies.clusters import k_means
from strategies.power import clasp_pe, decayed_beta
from strategies.strata import Empty
from strategies.typicality import typical_order

GROUP_SHARE = 0.1
NEAR_DUPLICATE = 0.995
DIVERSITY_CLUSTERS = 50


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
    ⌈2 · size / k⌉, after round 0 only, as typiclust itself goes from cluster to cluster; and none more alike than
    near_duplicate to a labelled or an already chosen image, where 0 is a pair of the pool on average and 1 the same
    (see `caps.twin_cosine`). What a cap holds back follows at the end, in its order, when nothing else is left: first
    images over the cluster limit, then over the group limit, then near-duplicates. scores: (n,) >= 0. embeddings:
    (n, D). labelled_embeddings: (m, D). strata: (n,), -1 without predicted foreground. Returns (min(size, n),) intp.
    No random arm is in here: the caller mixes one in.
    """
    scores, rows = checked_amounts(scores), checked_embeddings(embeddings)
    labelled = checked_labelled(labelled_embeddings, rows.shape[1])
    size = min(checked_size(size), len(rows))
    by_score = clasp_pe(scores, strata, len(rows), rng, beta=decayed_beta(round_number), empty=empty)
    most_of_group = math.ceil(checked_share(group_share, "group_share") * size)
    if size == 0:
        return np.empty(0, dtype=np.intp)
    query = Query(rows, labelled, size, twin_cosine(rows, near_duplicate))
    query.group = None if groups is None else Limit.on(groups, most_of_group)
    if round_number == 0:
        return query.filled(typical_order(rows, labelled, size, rng, at_least=len(rows)))
    k = min(DIVERSITY_CLUSTERS, size)
    query.cluster = Limit.on(k_means(rows, k, rng), math.ceil(2 * size / k))
    return query.filled(by_score)
