"""How a model does where it was not trained: it learns from all of a source and is tested there and on targets."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from protocols import published, report
from protocols.datasets import Choice
from protocols.results import Outcome
from protocols.runs import Job, Target

NAME = "out-of-distribution"


def jobs(
    source: Path, targets: Sequence[Path], seeds: Sequence[int], split: str, designs: Sequence[str], prompt: str | None
) -> list[Job]:
    """A training per seed, scored on the test parts of the source and of every target under each prompt design."""
    found = []
    for seed in seeds:
        choices = [Choice(split=split, seed=seed, design=design, prompt=prompt) for design in designs]
        scored = tuple(Target(folder, choice) for folder in (source, *targets) for choice in choices)
        found.append(Job(source, choices[0], scored))
    return found


def write(out: Path, outcomes: Sequence[Outcome]) -> Path:
    """The report over all outcomes of models that were also tested elsewhere. Returns its path."""
    whole = [o for o in outcomes if o.percent == 100 and o.source]
    elsewhere = {o.source for o in whole if o.source != o.data}
    ours = [o for o in whole if o.source in elsewhere]
    sections = [
        *(_source(source, [o for o in ours if o.source == source]) for source in sorted(elsewhere)),
        _together(ours),
        _published(ours),
    ]
    return report.write(out, NAME, "Out of distribution", sections, ours)


def _source(source: str, outcomes: Sequence[Outcome]) -> str:
    rows = []
    for (model, split, prompts), found in report.by(outcomes, lambda o: (o.model, o.split, o.prompts)).items():
        tested = report.by(sorted(found, key=lambda o: (o.data != source, o.data)), lambda o: (o.data,))
        for (data,), of_data in tested.items():
            role = "in distribution" if data == source else "out of distribution"
            rows.append(
                (model, split, prompts, data, role, str(of_data[0].n_test), *_cells(of_data), _reference(data, prompts))
            )
        for name, values in _means(found).items():
            rows.append((model, split, prompts, name, "", "", report.over_seeds(values), "", "", ""))
    header = ["model", "split", "prompts", "test set", "role", "images", "DSC, %", "NSD as published, %"]
    header += ["boundary NSD (2 px), %", f"published DSC of {published.OURS}, %"]
    return f"## Trained on {source}\n\n" + report.table(header, rows)


def _cells(outcomes: Sequence[Outcome]) -> list[str]:
    return [report.over_seeds([getattr(o, measure) for o in outcomes]) for measure in ("dice", "nsd_released", "nsd")]


def _reference(data: str, prompts: str) -> str:
    known = published.DOMAIN[published.OURS].get(published.canonical(data)) if prompts == "original" else None
    return report.published(known)


def _means(outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
    """Mean Dice in and out of distribution and their harmonic mean, one value per seed. Every test set counts once."""
    found: dict[str, list[float]] = {"ID mean": [], "OOD mean": [], "harmonic mean": []}
    for seed in sorted({o.seed for o in outcomes}):
        of_seed = [o for o in outcomes if o.seed == seed]
        inside = [o.dice for o in of_seed if o.source == o.data]
        outside = [o.dice for o in of_seed if o.source != o.data]
        if inside and outside:
            means = statistics.fmean(inside), statistics.fmean(outside)
            for values, value in zip(found.values(), (*means, published.harmonic_mean(*means)), strict=True):
                values.append(value)
    return found


def _together(outcomes: Sequence[Outcome]) -> str:
    """The means over everything run so far, beside the published ones, which are over four sources and ten targets."""
    rows = []
    for row, found in report.by(outcomes, lambda o: (o.model, o.split, o.prompts)).items():
        reference = published.PROMPT_DESIGNS.get(row[2])
        beside = "–" if reference is None else " / ".join(f"{value:.2f}" for value in reference)
        rows.append((*row, *(report.over_seeds(values) for values in _means(found).values()), beside, _missing(found)))
    header = ["model", "split", "prompts", "ID mean", "OOD mean", "harmonic mean", "published", "not in ours"]
    text = "DSC in %. Only a row that lacks nothing may be compared with the published means."
    return f"## All sources together\n\n{text}\n\n" + report.table(header, rows)


def _missing(outcomes: Sequence[Outcome]) -> str:
    done = {(published.canonical(o.source), published.canonical(o.data)) for o in outcomes}
    wanted = [(source, data) for source, targets in published.TARGETS.items() for data in (source, *targets)]
    lacking = [data for source, data in wanted if (source, data) not in done]
    return ", ".join(lacking) or "nothing"


def _published(outcomes: Sequence[Outcome]) -> str:
    there = dict.fromkeys(published.canonical(o.data) for o in outcomes)
    columns = [name for name in published.DOMAIN[published.OURS] if name in there]
    rows = [
        (method, *(f"{figures[name]:.2f}" for name in columns), *(f"{m:.2f}" for m in published.DOMAIN_MEANS[method]))
        for method, figures in published.DOMAIN.items()
    ]
    absent = [name for name in there if name not in columns]
    text = "Each data set after training on its own source; the means are over all four sources and all ten targets."
    if absent:
        text += f" For {', '.join(absent)} nothing is published."
    return f"## Published DSC, %\n\n{text}\n\n" + report.table(["method", *columns, "ID", "OOD", "harmonic mean"], rows)
