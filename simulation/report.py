"""Outcomes → report.md: a table per measure, the area under each curve, and what may not be concluded."""

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from simulation.figure import learning_curve
from simulation.loop import Outcome

Curve = list[tuple[int, list[float]]]  # (labels, one value per seed), ascending in labels
FEWEST_SEEDS = 5


def write(folder: Path, outcomes: Sequence[Outcome], settings: Mapping[str, Any]) -> Path:
    """Write report.md and learning_curve.svg into the folder. Returns the path of the report."""
    dice = curves(outcomes, "dice")
    (folder / "learning_curve.svg").write_text(learning_curve(dice, "Dice, held-out mean"), encoding="utf-8")
    parts = [
        "# Simulation",
        "A perfect oracle answers every query; Dice and NSD are means over the same held-out images in every round.",
        "![Learning curves](learning_curve.svg)",
        _table("Dice", dice),
        _table("NSD", curves(outcomes, "nsd")),
        _seconds(outcomes),
        "## Read with care\n\n" + "\n".join(f"- {caution}" for caution in cautions(outcomes)),
        "## Settings\n\n" + "\n".join(f"- {name}: {value}" for name, value in settings.items()),
    ]
    path = folder / "report.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def curves(outcomes: Sequence[Outcome], measure: str) -> dict[str, Curve]:
    """Per strategy, sorted by name: its values of "dice" or "nsd" at each number of labels, one per seed."""
    found: dict[str, dict[int, list[float]]] = {}
    for outcome in sorted(outcomes, key=lambda o: (o.strategy, o.n_labels, o.seed)):
        found.setdefault(outcome.strategy, {}).setdefault(outcome.n_labels, []).append(getattr(outcome, measure))
    return {strategy: list(points.items()) for strategy, points in found.items()}


def area_under(curve: Curve) -> float:
    """Trapezoid area under the mean curve divided by the range of labels: the mean height. Unit of the measure."""
    points = [(labels, statistics.fmean(values)) for labels, values in curve]
    width = points[-1][0] - points[0][0]
    if width == 0:
        return points[0][1]
    return sum((right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in pairwise(points)) / width


def cautions(outcomes: Sequence[Outcome]) -> list[str]:
    """Sentences on what these numbers cannot show; always at least one."""
    found = ["The arms of one seed share held-out set, first labels and starting weights: compare within a seed."]
    fewest = min(len(values) for curve in curves(outcomes, "dice").values() for _, values in curve)
    if fewest < FEWEST_SEEDS:
        found.append(f"{fewest} seed(s): differences between strategies are not evidence below {FEWEST_SEEDS} seeds.")
    steps = {outcome.steps for outcome in outcomes}
    if len(steps) > 1:
        found.append(
            f"Optimiser steps were not equal ({min(steps)} to {max(steps)}): training length moves Dice as much as "
            "selection does, so the arms are not comparable. Raise or drop the time limit."
        )
    return found


def _table(measure: str, by_strategy: Mapping[str, Curve]) -> str:
    labels = [n for n, _ in next(iter(by_strategy.values()))]
    lines = [
        f"## {measure}: mean ± standard deviation over seeds",
        "",
        "| strategy | " + " | ".join(f"{n} labels" for n in labels) + " | area under the curve |",
        "|---" * (len(labels) + 2) + "|",
    ]
    for strategy, curve in by_strategy.items():
        cells = " | ".join(_cell(values) for _, values in curve)
        lines.append(f"| {strategy} | {cells} | {area_under(curve):.3f} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def _seconds(outcomes: Sequence[Outcome]) -> str:
    longest = max(outcome.seconds for outcome in outcomes)
    mean = statistics.fmean(outcome.seconds for outcome in outcomes)
    return f"A round took {mean:.1f} s on average, {longest:.1f} s at most."
