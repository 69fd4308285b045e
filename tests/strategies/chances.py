"""Counting what chance did against exact probabilities."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np
from scipy.stats import chi2

Answer = TypeVar("Answer", bound=Hashable)


def follows(draw: Callable[[], Answer], probabilities: Mapping[Answer, float], trials: int) -> None:
    """Nothing is drawn that has no probability, and the counts pass a chi-square test at one in 100,000."""
    counts = Counter(draw() for _ in range(trials))
    assert abs(sum(probabilities.values()) - 1) < 1e-9, "the reference itself must add up"
    impossible = {answer: n for answer, n in counts.items() if probabilities.get(answer, 0) == 0}
    assert not impossible
    likely = {answer: p for answer, p in probabilities.items() if p > 0}
    expected = np.array([trials * p for p in likely.values()])
    assert expected.min() >= 5, "too few trials for a chi-square test"
    found = np.array([counts[answer] for answer in likely])
    statistic = ((found - expected) ** 2 / expected).sum()
    assert statistic < chi2.isf(1e-5, len(likely) - 1), f"{dict(counts)} against {likely}"
