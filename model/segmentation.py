"""What a segmenter answers: a probability for every pixel, the draws behind it, and the maps of doubt they give."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr


@dataclass(frozen=True)
class Segmentation:
    """The answer for one image and prompt.

    probability: (H, W) float32 in [0, 1], image frame, mean over draws; draws: (N, h, w) float32 in [0, 1], model
    frame without padding, so S × S where images are squashed; embedding: (D,) float32, L2-normalised, the mean patch
    feature of the image. The maps below are (h, w) float64, model frame, made when first asked for; one draw, or the
    mean path, leaves nothing to disagree on.
    """

    probability: NDArray[np.float32]
    draws: NDArray[np.float32]
    embedding: NDArray[np.float32]

    @cached_property
    def entropy(self) -> NDArray[np.float64]:
        """All the doubt there is: H[p] = -p ln p - (1 - p) ln(1 - p) of the mean draw p, with 0 ln 0 = 0.

        Nats, in [0, ln 2]. Gal et al. 2017, eq. 3; the uncertainty map of MedCLIPSeg.
        """
        return _binary_entropy(self.draws.mean(0, dtype=np.float64))

    @cached_property
    def expected_entropy(self) -> NDArray[np.float64]:
        """The doubt that every draw shares: the mean of H over draws. Nats, in [0, ln 2]. Gal et al. 2017, eq. 5."""
        return _binary_entropy(self.draws.astype(np.float64)).mean(0)

    @cached_property
    def bald(self) -> NDArray[np.float64]:
        """What the draws disagree on: entropy minus expected entropy, the mutual information between prediction and
        weights. Nats, in [0, ln 2]. Houlsby et al. 2011, eq. 2."""
        # Entropy is concave, so a negative difference is only rounding.
        return np.maximum(self.entropy - self.expected_entropy, 0.0)

    @cached_property
    def variance(self) -> NDArray[np.float64]:
        """Variance over the draws (dividing by N). Probability squared, in [0, 1/4]."""
        return self.draws.var(0, dtype=np.float64)


def _binary_entropy(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(entr(probability) + entr(1 - probability))
