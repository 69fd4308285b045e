"""The endless row of scenes: the one at a position follows from seed and position alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pretraining.captions import Query, queries
from pretraining.endoscopy import endoscopy
from pretraining.scenes import Scene
from pretraining.sections import abstract, radiograph, section
from pretraining.specimens import dermoscopy, microscopy
from pretraining.ultrasound import ultrasound

VERSION = 1
"""Raised whenever the same seed would give other images."""

SHARES: Mapping[Callable[[np.random.Generator, int], Scene], float] = {
    endoscopy: 0.36,
    ultrasound: 0.32,
    microscopy: 0.06,
    dermoscopy: 0.05,
    section: 0.10,
    radiograph: 0.03,
    abstract: 0.08,
}


def scene(seed: int, position: int, size: int = 96) -> tuple[Scene, list[Query]]:
    """The scene at a position of the row with that seed, S = size pixels wide and high, and at least one query."""
    rng = np.random.default_rng([seed, position])
    makers, shares = list(SHARES), list(SHARES.values())
    while True:
        made = makers[rng.choice(len(makers), p=shares)](rng, size)
        asked = queries(made, rng)
        if asked:
            return made, asked
