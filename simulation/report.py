"""Records → report.md and its figures: who beats whom, by how much, and what may not be concluded."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simulation import figure, promises
from simulation.loop import ALL, BASELINES, FOREGROUND_RANDOM, Outcome, Record
from simulation.statistics import (
    REACHED,
    Curve,
    Difference,
    areas,
    budget_to,
    curves,
    difference,
    penalties,
    with_all,
)

FEWEST_SEEDS = 5


def write(folder: Path, records: Sequence[Record], groups: Mapping[str, str], settings: Mapping[str, Any]) -> Path:
    """Write report.md and its figures into the folder. Returns the path of the report.

    groups: of each held-out image, by id.
    """
    outcomes = [record.outcome for record in records]
    _draw(folder, outcomes)
    parts = [
        "# Simulation",
        "A perfect oracle answers every query; every figure is a mean over the same held-out images in every round. "
        "± is the standard deviation over seeds; brackets are 95 % intervals, seed against the same seed.",
        "## In a sentence\n\n" + "\n".join(verdicts(outcomes)),
        headline(outcomes),
        "![Learning curves, Dice](learning_curve.svg)",
        _table("Dice", curves(outcomes, "dice")),
        _table("NSD", curves(outcomes, "nsd")),
        "## Who beats whom\n\nIn how many of the rounds after the first the row is better than the column (paired "
        "t-test over seeds, Holm's correction, p < 0.05). 0 is a tie.\n\n![Penalty matrix](penalty_matrix.svg)",
        _promises(records, groups),
        _seconds(outcomes),
        "## Read with care\n\n" + "\n".join(f"- {caution}" for caution in cautions(outcomes)),
        "## Settings\n\n" + "\n".join(f"- {name}: {value}" for name, value in settings.items()),
    ]
    if any(record.asked for record in records):
        parts.insert(-2, "## What was asked for first\n\n![First queries](asked.png)")
    path = folder / "report.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def verdicts(outcomes: Sequence[Outcome]) -> list[str]:
    """Whether anything beats each kind of chance, in words; a tie is called one."""
    found = areas(outcomes, "dice")
    return [f"- {_against(found, baseline)}" for baseline in reversed(BASELINES) if baseline in found] or [
        "- Neither kind of random was run, so nothing can be said to be better than chance."
    ]


def _against(found: Mapping[str, Mapping[int, float]], baseline: str) -> str:
    others = {name: difference(found[name], found[baseline]) for name in found if name not in BASELINES}
    better = sorted(name for name, each in others.items() if each and each.better)
    worse = sorted(name for name, each in others.items() if each and each.worse)
    words = f"better than `{baseline}`: {', '.join(better)}" if better else f"nothing is shown to beat `{baseline}`"
    return f"By the area under the Dice curve, {words}" + (f"; worse: {', '.join(worse)}." if worse else ".")


def headline(outcomes: Sequence[Outcome]) -> str:
    """A row per strategy, best first."""
    dice, nsd = areas(outcomes, "dice"), areas(outcomes, "nsd")
    last, whole = curves(outcomes, "dice"), with_all(outcomes, "dice")
    ece, aurc = curves(outcomes, "ece"), curves(outcomes, "aurc")
    n_pool = max((o.n_labels for o in outcomes if o.strategy == ALL), default=0)
    lines = [
        "## Strategies, best first",
        "",
        "AUBC: area under the curve over the range of labels, the mean height. Budget: labels to "
        f"{REACHED:.0%} of the Dice that all labels give"
        + (f" ({whole:.3f} with {n_pool} labels)." if whole is not None else " (not run)."),
        "",
        "| strategy | AUBC Dice | against random | against foreground-aware random | AUBC NSD "
        "| Dice at the end | budget | ECE at the end | AURC at the end |",
        "|---" * 9 + "|",
    ]
    for name in sorted(dice, key=lambda each: -statistics.fmean(dice[each].values())):
        cells = [
            _cell(list(dice[name].values())),
            *(_difference(difference(dice[name], dice.get(other, {})), name == other) for other in BASELINES),
            _cell(list(nsd[name].values())),
            _cell(last[name][-1][1]),
            _budget(last[name], whole),
            f"{statistics.fmean(ece[name][-1][1]):.3f}",
            f"{statistics.fmean(aurc[name][-1][1]):.3f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cautions(outcomes: Sequence[Outcome]) -> list[str]:
    """Sentences on what these numbers cannot show; always at least one."""
    found = ["The arms of one seed share held-out set, first labels and starting weights: compare within a seed."]
    fewest = min((len(each) for curve in curves(outcomes, "dice").values() for _, each in curve), default=0)
    if fewest < FEWEST_SEEDS:
        found.append(f"{fewest} seed(s): differences between strategies are not evidence below {FEWEST_SEEDS} seeds.")
    n_others = len({outcome.strategy for outcome in outcomes} - {ALL, *BASELINES})
    if n_others > 1:
        found.append(
            f"Each interval is a 95 % one by itself: of {n_others} strategies none of which were any better, one would "
            f"still seem so by chance in {_by_luck(n_others):.0%} of such tables."
        )
    steps = {outcome.steps for outcome in outcomes}
    if len(steps) > 1:
        found.append(
            f"Optimiser steps were not equal ({min(steps)} to {max(steps)}): training length moves Dice as much as "
            "selection does, so the arms are not comparable. Raise or drop the time limit."
        )
    if FOREGROUND_RANDOM not in {outcome.strategy for outcome in outcomes}:
        found.append(f"`{FOREGROUND_RANDOM}`, the baseline that is hard to beat, was not run.")
    return found


def _by_luck(n: int) -> float:
    """The chance that at least one of n independent 95 % intervals lies above 0 where there is nothing."""
    return 1 - 0.975**n


def _promises(records: Sequence[Record], groups: Mapping[str, str]) -> str:
    """Whether bounds on Dice and forecasts held what they promise, on images and rounds they had not seen."""
    kept, forecast = promises.bounds(records, groups), promises.forecasts(records)
    lines = ["## What pre-annotations and forecasts promise", ""]
    if kept is None:
        lines.append("- Bounds on Dice: the held-out images are of too few groups for any.")
    else:
        each = (f"{verdict} {share:.0%} (mean Dice {dice:.2f})" for verdict, (share, dice) in kept.verdicts.items())
        lines.append(
            f"- Bounds on Dice that shall hold for {kept.level:.0%} held for {kept.coverage:.1%} of held-out images: "
            f"every group left out once of {kept.n_groups}, in every arm's last round. Verdicts: {', '.join(each)}."
        )
    if forecast is None:
        lines.append("- Forecasts: no curve has rounds enough for any.")
    else:
        lines.append(
            f"- Forecasts: of {forecast.n} later points of the curves {forecast.coverage:.0%} lay in their "
            f"{forecast.level:.0%} interval, of a median width of {forecast.median_width:.3f} Dice; the median error "
            f"was {forecast.error:.3f}."
        )
    return "\n".join(lines)


def _draw(folder: Path, outcomes: Sequence[Outcome]) -> None:
    dice = curves(outcomes, "dice")
    if not dice:
        return
    svg = figure.learning_curve(dice, "Dice, held-out mean", with_all(outcomes, "dice"))
    (folder / "learning_curve.svg").write_text(svg, encoding="utf-8")
    names, matrix = penalties(outcomes)
    n_rounds = max(len(curve) for curve in dice.values()) - 1
    (folder / "penalty_matrix.svg").write_text(figure.penalty_matrix(names, matrix, n_rounds), encoding="utf-8")


def _table(measure: str, by_strategy: Mapping[str, Curve]) -> str:
    labels = sorted({n for curve in by_strategy.values() for n, _ in curve})
    lines = [
        f"## {measure}: mean ± standard deviation over seeds",
        "",
        "| strategy | " + " | ".join(f"{n} labels" for n in labels) + " |",
        "|---" * (len(labels) + 1) + "|",
    ]
    for strategy, curve in by_strategy.items():
        values = dict(curve)
        lines.append(f"| {strategy} | {' | '.join(_cell(values[n]) if n in values else '' for n in labels)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def _difference(found: Difference | None, itself: bool) -> str:
    if itself or found is None:
        return "–"
    if found.interval is None:
        return f"{found.mean:+.3f}"
    return f"{found.mean:+.3f} [{found.interval[0]:+.3f}, {found.interval[1]:+.3f}]"


def _budget(curve: Curve, whole: float | None) -> str:
    if whole is None:
        return "–"
    n = budget_to(curve, REACHED * whole)
    return f"more than {curve[-1][0]}" if n is None else f"{n:.0f}"


def _seconds(outcomes: Sequence[Outcome]) -> str:
    longest = max(outcome.seconds for outcome in outcomes)
    mean = statistics.fmean(outcome.seconds for outcome in outcomes)
    return f"A round took {mean:.1f} s on average, {longest:.1f} s at most."
