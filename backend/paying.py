"""Whether active learning pays in a project: the strategy's annotations against the random arm's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np

from backend.context import Context
from backend.store import evidence as rows
from backend.store import projects
from backend.store.evidence import Answer
from backend.tables import Arm
from evidence.payoff import LEVEL, Answers, Comparison, judge


def of_project(ctx: Context, project_id: int) -> dict[str, Any]:
    """The verdict, in words and as figures; None where too little is known. NotConnected."""
    with ctx.store.read() as s:
        projects.get(s, project_id)
        found = rows.answers(s, project_id)
    judged = judge(_arrays(found))
    hidden = Counter(one.arm for one in found if one.hidden)
    return {
        "project_id": project_id,
        "level": LEVEL,
        "verdict": judged.verdict.value,
        "words": [*judged.words, *_hidden_in_words(hidden)],
        "measures": [_measure(one) for one in judged.comparisons.values()],
        "random_dice": judged.random_dice._asdict() if judged.random_dice else None,
        "hidden": {arm.value: hidden[arm] for arm in (Arm.strategy, Arm.random)},
    }


def _arrays(found: Sequence[Answer]) -> Answers:
    return Answers(
        random=np.array([one.arm is Arm.random for one in found], dtype=bool),
        groups=np.array([one.group for one in found], dtype=str),
        rounds=np.array([one.round for one in found], dtype=int),
        dice=np.array([fmean(one.dice.values()) if one.dice else np.nan for one in found], dtype=float),
        seconds=np.array([_or_nan(one.lead_time_seconds) for one in found], dtype=float),
        accepted=np.array([_or_nan(one.accepted) for one in found], dtype=float),
    )


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _measure(one: Comparison) -> dict[str, Any]:
    """One line of the table, flat: the interval beside the difference."""
    value, low, high = one.difference or (None, None, None)
    flat = {name: each for name, each in asdict(one).items() if name != "difference"}
    return flat | {"difference": value, "low": low, "high": high}


def _hidden_in_words(hidden: Counter[Arm]) -> list[str]:
    if not hidden:
        return []
    return [
        f"{hidden[Arm.strategy]} pre-annotations of the strategy's images and {hidden[Arm.random]} of random ones were "
        "judged worse than none and not shown: they are missing here, and with them the hardest images of both"
    ]
