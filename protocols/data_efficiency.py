"""How much a share of the training images is worth: one model per percentage, all tested on the whole test set."""

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from protocols import published, report
from protocols.datasets import SPLITS, Choice
from protocols.results import Outcome
from protocols.runs import Job, Target

NAME = "data-efficiency"


def jobs(
    folders: Sequence[Path], percents: Sequence[int], seeds: Sequence[int], splits: Sequence[str], prompt: str | None
) -> list[Job]:
    """A training per folder, split, percentage and seed, scored on the test part of the same folder and split."""
    choices = [
        Choice(percent=percent, split=split, seed=seed, prompt=prompt)
        for split in splits
        for percent in percents
        for seed in seeds
    ]
    return [Job(folder, choice, (Target(folder, choice),)) for folder in folders for choice in choices]


def write(out: Path, outcomes: Sequence[Outcome]) -> Path:
    """The report over all outcomes of models tested where they were trained. Returns its path."""
    ours = [o for o in outcomes if o.source == o.data and (o.prompts == "original" or o.prompts.startswith("“"))]
    sections = [
        _measures("Dice (DSC), %", "dice", ours),
        _measures("NSD as published, %", "nsd_released", ours),
        _measures("Boundary NSD (2 px), %", "nsd", ours),
        _images(ours),
        *_leak(ours),
        _published(ours),
    ]
    return report.write(out, NAME, "Data efficiency", sections, ours)


def _row(o: Outcome) -> tuple[str, ...]:
    return (o.model, o.data, o.split, o.prompts)


def _percents(outcomes: Sequence[Outcome]) -> list[int]:
    return sorted({o.percent for o in outcomes})


def _measures(heading: str, measure: str, outcomes: Sequence[Outcome]) -> str:
    percents = _percents(outcomes)
    rows = [
        (*row, *(report.over_seeds([getattr(o, measure) for o in found if o.percent == p]) for p in percents))
        for row, found in (report.by(outcomes, _row) | _averages(outcomes)).items()
    ]
    return f"## {heading}\n\n" + report.table(["model", "data", "split", "prompts", *_headings(percents)], rows)


def _headings(percents: Sequence[int]) -> list[str]:
    return [f"{percent} %" for percent in percents]


def _averages(outcomes: Sequence[Outcome]) -> dict[tuple[str, ...], list[Outcome]]:
    """Where all data sets of the published average are there at a percentage: their outcomes, under one name."""
    known = [o for o in outcomes if published.canonical(o.data) in published.AVERAGED and o.split == "published"]
    found: dict[tuple[str, ...], list[Outcome]] = {}
    for (model, prompts, _, _), group in report.by(
        known, lambda o: (o.model, o.prompts, str(o.percent), str(o.seed))
    ).items():
        if {published.canonical(o.data) for o in group} == set(published.AVERAGED):
            found.setdefault((model, "mean of the six", "published", prompts), []).append(_mean(group))
    return found


def _mean(group: Sequence[Outcome]) -> Outcome:
    """One outcome whose measures in the tables are the means of the group's."""
    return dataclasses.replace(
        group[0],
        dice=statistics.fmean(o.dice for o in group),
        nsd_released=statistics.fmean(o.nsd_released for o in group),
        nsd=statistics.fmean(o.nsd for o in group),
    )


def _images(outcomes: Sequence[Outcome]) -> str:
    percents = _percents(outcomes)
    rows = []
    for (data, split), found in report.by(outcomes, lambda o: (o.data, o.split)).items():
        trained = [_each_of(o.n_train for o in found if o.percent == percent) for percent in percents]
        tested = (_each_of(o.n_test for o in found), _each_of(o.n_test_groups for o in found))
        rows.append((data, split, *trained, *tested))
    header = ["data", "split", *(f"train, {percent} %" for percent in percents), "test", "test groups"]
    return "## Images\n\n" + report.table(header, rows)


def _each_of(numbers: Iterable[int]) -> str:
    """The different ones of these numbers; grouped splits differ a little between seeds."""
    return ", ".join(str(number) for number in sorted(set(numbers))) or report.NONE


def _leak(outcomes: Sequence[Outcome]) -> list[str]:
    """What a split that tears groups apart adds to Dice, where both splits were run."""
    rows = []
    for (*row, percent), found in report.by(outcomes, lambda o: (o.model, o.data, o.prompts, str(o.percent))).items():
        dice = {split: {o.seed: o.dice for o in found if o.split == split} for split in SPLITS}
        both = sorted(set(dice["published"]) & set(dice["grouped"]))
        if both:
            of_split = [[dice[split][seed] for seed in both] for split in SPLITS]
            difference = [a - b for a, b in zip(*of_split, strict=True)]
            cells = (report.over_seeds(values) for values in (*of_split, difference))
            rows.append((*row, f"{percent} %", _each_of(o.n_train for o in found), *cells))
    if not rows:
        return []
    header = ["model", "data", "prompts", "share", "training images", *SPLITS, "leak"]
    text = (
        "Dice in %. In the published split, images of one group (a patient, a video) may stand on both sides; in the "
        "grouped split none does. Both train on equally many images. The test images differ, so with few test groups "
        "the leak is uncertain: several seeds, each of which draws other groups, show how much."
    )
    return [f"## The leak: published minus grouped split\n\n{text}\n\n" + report.table(header, rows)]


def _published(outcomes: Sequence[Outcome]) -> str:
    rows = [
        (method, *(f"{dsc:.2f} / {nsd:.2f}" for dsc, nsd in shares.values()))
        for method, shares in published.DATA_EFFICIENCY.items()
    ]
    six = ", ".join(published.AVERAGED)
    lines = [f"- {line}" for line in dict.fromkeys(_counterpart(o.data) for o in outcomes)]
    return "\n\n".join(
        [
            "## Published: DSC / NSD, mean of six data sets, %",
            f"The mean is over {six}; single data sets are published only at 100 %, and there without NSD. "
            "It may be compared with the row “mean of the six” alone, which appears when all six are there.",
            "\n".join(lines),
            report.table(["method", *_headings([10, 25, 50, 100])], rows),
        ]
    )


def _counterpart(data: str) -> str:
    """Which published figure stands beside this data set, if any."""
    name = published.canonical(data)
    figure = published.DOMAIN[published.OURS].get(name)
    if name in published.TARGETS:
        return f"{data}: {published.OURS} at 100 % has DSC {report.published(figure)}."
    trained_on = [source for source, targets in published.TARGETS.items() if name in targets]
    if trained_on:
        return (
            f"{data}: nothing is published for training on it. (DSC {report.published(figure)} is of a model trained "
            f"on {trained_on[0]}: see `out-of-distribution`.)"
        )
    return f"{data}: nothing is published for it alone."
