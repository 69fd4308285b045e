"""Whether the candidate may serve: a paired comparison on the held-out images, never a coin flip on a mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.rounds.job import Job, Write
from backend.tables import Verdict

_RESAMPLES = 2000
_LEVEL = 0.9  # of the two-sided bootstrap interval: its lower end is the one-sided 95 % bound


@dataclass(frozen=True)
class Decision:
    """The verdict, why, and the paired difference in Dice (candidate minus incumbent) with its interval."""

    verdict: Verdict
    reason: str
    difference: float | None = None
    interval: tuple[float, float] | None = None


def step(job: Job) -> Write:
    """Decide and keep the decision with the evaluation. The candidate serves from the publication on, not before."""
    evaluation = job.round.evaluation or {}
    decision = decide(
        has_candidate=job.round.candidate_id is not None,
        has_incumbent=job.round.incumbent_id is not None or job.ctx.serving.version(job.project.id) is not None,
        candidate=evaluation.get("candidate", {}).get("dice_per_image", ()),
        incumbent=evaluation.get("incumbent", {}).get("dice_per_image", ()),
        margin=job.ctx.settings.promotion_margin,
        seed=job.round.seed,
    )
    decided: dict[str, Any] = {
        "reason": decision.reason,
        "difference": decision.difference,
        "interval": decision.interval,
    }
    return lambda _s: {"verdict": decision.verdict, "evaluation": {**evaluation, **decided}}


def decide(
    *,
    has_candidate: bool,
    has_incumbent: bool,
    candidate: Sequence[float],
    incumbent: Sequence[float],
    margin: float,
    seed: int,
) -> Decision:
    """Promote a candidate that is better on the whole and, at 95 % confidence, not worse by more than `margin`.

    candidate, incumbent: Dice per held-out image, in the same order. Percentile bootstrap over the paired
    differences (Efron 1979).
    """
    if not has_candidate:
        reason = "there were no annotations to train on"
        return Decision(Verdict.kept if has_incumbent else Verdict.initial, reason)
    if not has_incumbent:
        return Decision(Verdict.promoted, "it is the first version")
    if not len(candidate):
        return Decision(Verdict.kept, "no held-out image has an annotation yet, so nothing shows that it is better")
    differences = np.asarray(candidate, dtype=float) - np.asarray(incumbent, dtype=float)
    mean = float(differences.mean())
    low, high = _interval(differences, np.random.default_rng(seed))
    if mean > 0 and low >= -margin:
        return Decision(Verdict.promoted, "it is better and not worse by the margin", mean, (low, high))
    return Decision(Verdict.kept, "it is not shown to be better", mean, (low, high))


def _interval(differences: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    drawn = rng.integers(0, len(differences), size=(_RESAMPLES, len(differences)))
    low, high = np.quantile(differences[drawn].mean(axis=1), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)
