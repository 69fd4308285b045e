"""Selection by noisy scores: chance keeps a batch from being many times the same image.

Every function returns (k,) intp, unique, in [0, n), k = min(size, n).
"""

import numpy as np

from strategies.checks import checked_amounts, checked_size
from strategies.errors import BadRequest
from strategies.strata import Empty, stratified

FIRST_BETA, LAST_BETA = 1.0, 100.0
DECAY_ROUNDS = 10


def decayed_beta(round_number: int) -> float:
    """How little noise there is: 1 at round 0, 100 from round DECAY_ROUNDS on, growing by one factor in between.

    β(r) = 100 ** (min(r, 10) / 10). The two ends are those of ClaSP PE (arXiv:2601.13677), whose noise decays as the
    model's uncertainty becomes worth trusting; growth by a constant factor is our choice, as β acts on logarithms.
    """
    if round_number < 0:
        raise BadRequest(f"round_number is {round_number}; count queries from 0")
    return float(FIRST_BETA * (LAST_BETA / FIRST_BETA) ** min(round_number / DECAY_ROUNDS, 1.0))


def power(scores: np.ndarray, size: int, rng: np.random.Generator, *, beta: float) -> np.ndarray:
    """Draws without replacement, each time with probability ∝ score ** β over the images left.

    scores: (n,) >= 0, any unit: its scale does not matter. Computed as the top of ln(score) + Gumbel(0, 1) / β, which
    is the same (Gumbel-top-k). Kirsch et al. 2023 (Stochastic Batch Acquisition), "power". Scores of 0 come last, in
    an order by chance. Raises BadScores, and BadRequest for β <= 0.
    """
    return _noisy_order(scores, rng, beta)[: checked_size(size)]


def clasp_pe(
    scores: np.ndarray, strata: np.ndarray, size: int, rng: np.random.Generator, *, beta: float, empty: Empty = "low"
) -> np.ndarray:
    """Class-stratified power noise: the noisy order of `power`, classes taking turns as in `strata.stratified`.

    scores: (n,) >= 0, for ClaSP PE predictive entropy over the region of interest, per area. strata: (n,) whole
    numbers, the class of each image, -1 without predicted foreground, of which `empty` decides. arXiv:2601.13677.
    """
    return stratified(_noisy_order(scores, rng, beta), strata, empty=empty)[: checked_size(size)]


def _noisy_order(scores: np.ndarray, rng: np.random.Generator, beta: float) -> np.ndarray:
    """All positions by ln(score) + Gumbel(0, 1) / β, highest first."""
    scores = checked_amounts(scores)
    if not beta > 0:
        raise BadRequest(f"beta is {beta}; it must be above 0")
    # The smallest normal number in the place of 0: below every score that can occur, yet with an order by chance.
    noisy = np.log(np.maximum(scores, np.finfo(np.float64).tiny)) + rng.gumbel(size=len(scores)) / beta
    return np.argsort(-noisy, kind="stable").astype(np.intp)
