"""Draws → uncertainty map. Every function here takes the draws of one image in the model frame and returns one map.

draws: (N, h, w), probabilities of foreground in [0, 1], N >= 1. Returns (h, w) float64. Raises BadDraws.
"""

import numpy as np
from scipy.special import entr

from strategies.errors import BadDraws

# Resampling in single precision may leave [0, 1] by a rounding error; anything beyond is a mistake.
_ROUNDING = 1e-6


def predictive_entropy(draws: np.ndarray) -> np.ndarray:
    """Entropy of the mean over draws: all the doubt there is. Nats, in [0, ln 2].

    H[p] = -p ln p - (1 - p) ln(1 - p), p = mean of the draws. Gal et al. 2017, eq. 3; MedCLIPSeg's own map.
    """
    return _binary_entropy(_checked(draws).mean(axis=0))


def expected_entropy(draws: np.ndarray) -> np.ndarray:
    """Mean over draws of the entropy: the doubt every draw shares. Nats, in [0, ln 2]. Gal et al. 2017, eq. 5."""
    return _binary_entropy(_checked(draws)).mean(axis=0)


def bald(draws: np.ndarray) -> np.ndarray:
    """Mutual information between prediction and weights: what the draws disagree on. Nats, in [0, ln 2].

    Predictive entropy minus expected entropy. Houlsby et al. 2011, eq. 2.
    """
    # Entropy is concave, so a negative difference is only rounding.
    return np.maximum(predictive_entropy(draws) - expected_entropy(draws), 0.0)


def variance(draws: np.ndarray) -> np.ndarray:
    """Variance over draws (dividing by N), in [0, 1/4], probability squared."""
    return _checked(draws).var(axis=0)


def mean_probability(draws: np.ndarray) -> np.ndarray:
    """Mean over draws, in [0, 1]: the prediction the maps above are about."""
    return _checked(draws).mean(axis=0)


def _binary_entropy(probability: np.ndarray) -> np.ndarray:
    return np.asarray(entr(probability) + entr(1.0 - probability))


def _checked(draws: np.ndarray) -> np.ndarray:
    """The draws in double precision, so that confident pixels keep their small entropy."""
    if draws.ndim != 3 or draws.size == 0:
        raise BadDraws(f"draws have shape {draws.shape}; they must be (N, h, w) with at least one draw and one pixel")
    # Written so that NaN, which compares false with everything, is refused too.
    if not (draws.min() >= -_ROUNDING and draws.max() <= 1.0 + _ROUNDING):
        raise BadDraws(f"draws span {draws.min()} to {draws.max()}; they must be probabilities in [0, 1], not logits")
    return np.clip(draws.astype(np.float64), 0.0, 1.0)
