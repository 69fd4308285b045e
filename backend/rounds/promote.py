"""Whether the candidate may serve: a paired comparison on the held-out images, never a coin flip on a mean."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backend.rounds.job import Job, Write
from backend.tables import Verdict

_RESAMPLES = 2000
_LEVEL = 0.9  # of the two-sided bootstrap interval: its lower end is the one-sided 95 % bound

Items = Sequence[Sequence[Any]]  # [task id, label], as the evaluation keeps them


@dataclass(frozen=True)
class Difference:
    """Mean difference in Dice (candidate minus incumbent) and its interval; no interval from one group alone."""

    mean: float
    interval: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        return {"difference": self.mean, "interval": self.interval}


@dataclass(frozen=True)
class Decision:
    """The verdict, why, and the paired difference in Dice on the whole and by label, where there is one."""

    verdict: Verdict
    reason: str
    difference: float | None = None
    interval: tuple[float, float] | None = None
    per_label: dict[str, dict[str, Any]] = field(default_factory=dict)


def step(job: Job) -> Write:
    """Decide and keep the decision with the evaluation. The candidate serves from the publication on, not before."""
    evaluation = job.round.evaluation or {}
    decision = decide(
        has_candidate=job.round.candidate_id is not None,
        has_incumbent=job.round.incumbent_id is not None or job.ctx.serving.version(job.project.id) is not None,
        candidate=evaluation.get("candidate", {}).get("dice_per_image", ()),
        incumbent=evaluation.get("incumbent", {}).get("dice_per_image", ()),
        items=evaluation.get("items", ()),
        groups=evaluation.get("groups"),
        min_held_out=job.ctx.settings.min_held_out,
        margin=job.ctx.settings.promotion_margin,
        seed=job.round.seed,
    )
    decided: dict[str, Any] = {
        "reason": decision.reason,
        "difference": decision.difference,
        "interval": decision.interval,
        "per_label": decision.per_label,
    }
    return lambda _s: {"verdict": decision.verdict, "evaluation": {**evaluation, **decided}}


def decide(
    *,
    has_candidate: bool,
    has_incumbent: bool,
    candidate: Sequence[float],
    incumbent: Sequence[float],
    items: Items,
    groups: Sequence[Hashable] | None,
    min_held_out: int,
    margin: float,
    seed: int,
) -> Decision:
    """Promote a candidate that is better on the whole, at 95 % confidence not worse by more than `margin`, and for no
    label shown to be worse by more than it.

    candidate, incumbent: Dice per held-out item, parallel to `items` and `groups` (of each item; None: a task is a
    group of its own). min_held_out: distinct held-out tasks below which nothing is promoted, the first version
    included.
    """
    if not has_candidate:
        reason = "there were no annotations to train on"
        return Decision(Verdict.kept if has_incumbent else Verdict.initial, reason)
    n_tasks = len({task_id for task_id, _ in items})
    if n_tasks < min_held_out:
        return Decision(Verdict.kept, _too_few(n_tasks, min_held_out))
    if not has_incumbent:
        return Decision(Verdict.promoted, "it is the first version")
    if not len(candidate) == len(incumbent) == len(items):
        return Decision(Verdict.kept, "the two versions were not evaluated on the same held-out images")
    differences = np.asarray(candidate, dtype=float) - np.asarray(incumbent, dtype=float)
    return _compare(differences, items, groups, margin, np.random.default_rng(seed))


def _too_few(n_tasks: int, min_held_out: int) -> str:
    images = "image has" if n_tasks == 1 else "images have"
    return (
        f"{n_tasks} held-out {images} an annotation and {min_held_out} are needed (WARDROUND_MIN_HELD_OUT): "
        "nothing is promoted before"
    )


def _compare(
    differences: np.ndarray, items: Items, groups: Sequence[Hashable] | None, margin: float, rng: np.random.Generator
) -> Decision:
    codes = _codes([task_id for task_id, _ in items] if groups is None else groups)
    whole = _difference(differences, codes, rng)
    labels = np.array([label for _, label in items], dtype=object)
    by_label = {
        label: _difference(differences[labels == label], codes[labels == label], rng) for label in sorted(set(labels))
    }
    worse = [label for label, one in by_label.items() if one.interval and one.interval[1] < -margin]
    verdict, reason = _verdict(whole, worse, margin)
    return Decision(
        verdict, reason, whole.mean, whole.interval, {label: one.to_dict() for label, one in by_label.items()}
    )


def _verdict(whole: Difference, worse: Sequence[str], margin: float) -> tuple[Verdict, str]:
    if whole.interval is None:
        return Verdict.kept, "all held-out images are of one group, so nothing shows that it is better elsewhere"
    if worse:
        return Verdict.kept, f"it is worse for {', '.join(worse)}"
    if whole.mean > 0 and whole.interval[0] >= -margin:
        return Verdict.promoted, "it is better and not worse by the margin"
    return Verdict.kept, "it is not shown to be better"


def _codes(groups: Sequence[Hashable]) -> np.ndarray:
    """A number for each item's group, whatever names it."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], dtype=int)


def _difference(differences: np.ndarray, codes: np.ndarray, rng: np.random.Generator) -> Difference:
    """Percentile bootstrap over groups (Efron 1979; clusters: Field and Welsh 2007).

    Images of one patient resemble each other: drawing them one by one would make the interval too narrow. Groups are
    drawn whole instead, so a mean is a sum of group sums over a sum of group sizes.
    """
    present = np.unique(codes, return_inverse=True)[1]
    sums, sizes = np.bincount(present, weights=differences), np.bincount(present)
    mean = float(differences.mean())
    if len(sizes) < 2:
        return Difference(mean, None)
    drawn = rng.integers(0, len(sizes), size=(_RESAMPLES, len(sizes)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Difference(mean, (float(low), float(high)))
