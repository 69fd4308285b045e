"""How far a round's held-out Dice can be off against the other rounds', from the Dice of each held-out group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

Groups = Mapping[Any, float]  # group → its mean Dice in one round


def noise_of_rounds(rounds: Sequence[Groups]) -> list[float]:
    """Standard error of each round's mean Dice against the round with the most groups, in order: Dice.

        s² = between² · (1/n − 1/N) + within² / n

    n: groups of the round; N: of the round with the most. between: standard deviation of Dice over the groups of a
    round; within: of a group's Dice from training to training, taken from consecutive rounds on the groups they share.
    A held-out set grows while it is annotated: as long as it is small its mean differs because its images do, which is
    the first term, and falls away once it has grown (sampling without replacement; Cochran 1977, ch. 2). The plain
    standard error, between / √n, would count the images' differences in every round, though they are the same images.
    """
    most = max((len(groups) for groups in rounds), default=0)
    between = [float(np.var(list(groups.values()), ddof=1)) if len(groups) > 1 else np.nan for groups in rounds]
    known = [variance for variance in between if np.isfinite(variance)]
    usual = float(np.mean(known)) if known else 0.0
    within = _within(rounds, usual)
    return [
        float(
            np.sqrt((usual if np.isnan(variance) else variance) * (1 / len(groups) - 1 / most) + within / len(groups))
        )
        for variance, groups in zip(between, rounds, strict=True)
    ]


def _within(rounds: Sequence[Groups], otherwise: float) -> float:
    """Variance of a group's Dice around the round's mean, from rounds that share groups; `otherwise` without."""
    found: list[float] = []
    for earlier, later in pairwise(rounds):
        shared = [later[group] - earlier[group] for group in earlier if group in later]
        if len(shared) > 1:
            found.append(float(np.var(shared, ddof=1)) / 2)  # both rounds waver
    return float(np.mean(found)) if found else otherwise
