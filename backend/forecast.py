"""How far a project still is: labels and minutes to a target Dice, with an interval, and whether to stop."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import Any, TypeVar

from backend.context import Context
from backend.errors import BadQuestion, TooEarly
from backend.store import evidence as rows
from backend.store import projects
from backend.store.evidence import Evaluated
from evidence import forecast as judgement
from evidence.errors import EvidenceError, TooFewRounds
from evidence.figure import forecast_svg
from evidence.forecast import Curve, Fit, Interval
from evidence.noise import noise_of_rounds

T = TypeVar("T")

TARGET = 0.9
_RECENT = 200  # annotations: what one costs changes with the model, and with who annotates
_LONGEST = 5  # times the median: somebody who goes for lunch with a task open must not decide
_STEPS = (1.0, 1.25, 1.5, 2.0, 3.0)  # times the labels so far: how far the table looks ahead


def of_project(ctx: Context, project_id: int, target: float = TARGET) -> dict[str, Any]:
    """The forecast as plain values; infinite labels and minutes are None. NotConnected, TooEarly, BadQuestion."""
    known, curve, fitted = _fitted(ctx, project_id)
    needed = _asked(lambda: judgement.labels_to(fitted, target))
    with ctx.store.read() as s:
        pool, lead_times = rows.count_pool(s, project_id), rows.latest_lead_times(s, project_id, _RECENT)
    seconds = _seconds_per_label(lead_times)
    stop = judgement.should_stop(fitted, _query_size(known))
    found = {
        "project_id": project_id,
        "target": target,
        "level": judgement.LEVEL,
        "rounds": _measured(known, curve, fitted),
        "labels": _finite(needed),
        "seconds_per_label": seconds,
        "minutes": _finite(Interval(*(each * seconds / 60 for each in needed))) if seconds is not None else None,
        "ceiling": judgement.ceiling(fitted)._asdict(),
        "pool": pool,
        "chance_with_pool": judgement.chance_of(fitted, target, pool),
        "ahead": [
            {"n_labels": round(step * fitted.last)} | judgement.predict(fitted, round(step * fitted.last))._asdict()
            for step in _STEPS
        ],
        "stop": stop.stop,
        "gain": stop.gain._asdict(),
        "noise": stop.noise,
    }
    return found | {"words": [judgement.words_for_labels(fitted, target), *_more_words(found), stop.why]}


def picture(ctx: Context, project_id: int, target: float = TARGET) -> str:
    """The forecast as an SVG document. NotConnected, TooEarly, BadQuestion."""
    _, curve, fitted = _fitted(ctx, project_id)
    _asked(lambda: judgement.labels_to(fitted, target))
    return forecast_svg(curve, fitted, target)


def _fitted(ctx: Context, project_id: int) -> tuple[list[Evaluated], Curve, Fit]:
    """The rounds that count, their curve, and what may have drawn it."""
    with ctx.store.read() as s:
        projects.get(s, project_id)
        known = [one for one in rows.evaluated(s, project_id) if one.n_labels and one.dice]
        groups = rows.groups_held_out(s, project_id)
    noise = noise_of_rounds([_by_group(one, groups) for one in known])
    curve = _asked(lambda: Curve([one.n_labels for one in known], [fmean(one.dice) for one in known], noise))
    return known, curve, judgement.fit(curve)


def _asked(question: Callable[[], T]) -> T:
    """What the question answers; figures that allow no answer are an error of ours, with the same words."""
    try:
        return question()
    except TooFewRounds as error:
        raise TooEarly(str(error)) from error
    except EvidenceError as error:
        raise BadQuestion(str(error)) from error


def _by_group(one: Evaluated, groups: Mapping[int, str]) -> dict[Any, float]:
    """Mean Dice of each group; a task that has been deleted since is a group of its own."""
    found: dict[Any, list[float]] = defaultdict(list)
    for (task_id, _), dice in zip(one.items, one.dice, strict=True):
        found[groups.get(task_id, task_id)].append(dice)
    return {group: fmean(values) for group, values in found.items()}


def _query_size(known: Sequence[Evaluated]) -> int:
    """What a query has added to the training labels so far, usually."""
    counts = sorted({one.n_labels for one in known})
    return max(1, round(median(later - earlier for earlier, later in pairwise(counts))))


def _seconds_per_label(lead_times: Sequence[float]) -> float | None:
    """The mean, for a sum is asked for, of lead times cut off at five medians."""
    if not lead_times:
        return None
    longest = _LONGEST * median(lead_times)
    return fmean(min(seconds, longest) for seconds in lead_times)


def _measured(known: Sequence[Evaluated], curve: Curve, fitted: Fit) -> list[dict[str, Any]]:
    """A line a round, in the curve's order: by labels."""
    ordered = sorted(known, key=lambda one: one.n_labels)
    return [
        {
            "round": one.number,
            "n_labels": one.n_labels,
            "n_held_out": len({task_id for task_id, _ in one.items}),
            "dice": float(curve.dice[at]),
            "noise": float(curve.noise[at]),
            "curve": judgement.predict(fitted, one.n_labels).median,
        }
        for at, one in enumerate(ordered)
    ]


def _finite(interval: Interval) -> dict[str, float | None]:
    """JSON has no infinity."""
    return {name: None if math.isinf(value) else value for name, value in interval._asdict().items()}


def _more_words(found: Mapping[str, Any]) -> list[str]:
    labels, minutes = found["labels"], found["minutes"]
    if labels["high"] == 0:
        return []
    words = []
    if minutes and minutes["median"]:
        end = "perhaps never" if minutes["high"] is None else f"{minutes['high']:.0f}"
        words.append(
            f"that is about {minutes['median']:.0f} minutes ({minutes['low']:.0f} to {end}) at "
            f"{found['seconds_per_label']:.0f} s a label"
        )
    return [
        *words,
        f"{found['pool']} images are left to ask for; the chance to reach it with them is "
        f"{100 * found['chance_with_pool']:.0f} %",
    ]
