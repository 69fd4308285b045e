"""Outcomes as Markdown, CSV and JSON. Every figure in the tables is a percentage unless its heading says otherwise."""

import csv
import dataclasses
import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from protocols.results import Outcome

NOT_PUBLISHED = "not published"
NONE = "–"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def percentage(value: float | None) -> str:
    """A share in [0, 1] as a percentage with two decimals, like the published ones."""
    return NONE if value is None else f"{100 * value:.2f}"


def published(value: float | None) -> str:
    """A published percentage, or that there is none."""
    return NOT_PUBLISHED if value is None else f"{value:.2f}"


def over_seeds(values: Sequence[float]) -> str:
    """Mean, and standard deviation where there are several, of shares in [0, 1]."""
    if not values:
        return NONE
    mean = percentage(statistics.fmean(values))
    return f"{mean} ± {percentage(statistics.stdev(values))}" if len(values) > 1 else mean


def by(outcomes: Iterable[Outcome], key: Callable[[Outcome], tuple[str, ...]]) -> dict[tuple[str, ...], list[Outcome]]:
    """The outcomes under each key, keys in the order in which they first come."""
    found: dict[tuple[str, ...], list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(key(outcome), []).append(outcome)
    return found


def cautions(outcomes: Sequence[Outcome]) -> list[str]:
    """What a reader should know of these figures, always beginning with how far they may be compared."""
    found = [
        "Compare DSC with the published DSC, and “NSD as published” with the published NSD: the released evaluation "
        "counts all of a mask as surface, so its NSD is an overlap. “Boundary NSD” has no published counterpart.",
        "Published figures are of one run (seed 666) over unimedclip, 100 epochs (EUS 10), the last epoch, 30 draws; "
        "its mask is cut at 0.5 before it is enlarged to the image, ours after.",
        "The published prompts tell count, size and place of what is to be found, or that there is nothing; they were "
        "made from the masks. Do not compare with methods that see the image alone.",
    ]
    seeds = {outcome.seed for outcome in outcomes}
    if len(seeds) < 3:
        found.append(f"{len(seeds)} seed(s): no difference here comes with its spread.")
    return found + list(dict.fromkeys(note for outcome in outcomes for note in outcome.notes))


def write(out: Path, name: str, title: str, sections: Sequence[str], outcomes: Sequence[Outcome]) -> Path:
    """Write NAME.md, NAME.csv and NAME.json into the folder; the latter two hold every outcome. Returns the first."""
    read_with_care = "## Read with care\n\n" + "\n".join(f"- {caution}" for caution in cautions(outcomes))
    path = out / f"{name}.md"
    path.write_text("\n\n".join([f"# {title}", *sections, read_with_care]) + "\n", encoding="utf-8")
    rows = [dataclasses.asdict(outcome) for outcome in outcomes]
    (out / f"{name}.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with (out / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Outcome)])
        writer.writeheader()
        writer.writerows({**row, "notes": " ".join(row["notes"])} for row in rows)
    return path
