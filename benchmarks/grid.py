"""Every strategy on several sets of images, side by side: what `docs/results` holds. Hours on two cores.

    python benchmarks/grid.py FOLDER [FOLDER …] [--out grid] [--seeds 5] [--jobs 0] [--collect docs/results]

Each folder is a labelled one (`pairs.csv`) and gets a simulation of its own under --out, resumable like any other.
--collect then copies tables and figures, never an image of the data, and writes one page over all sets.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import strategies
from simulation.loop import ALL, BASELINES, FOREGROUND_RANDOM, RANDOM, Outcome
from simulation.results import read_table
from simulation.statistics import REACHED, areas, budget_to, curves, difference, with_all

SETTINGS = {
    "seed-size": 6, "query-size": 6, "rounds": 3, "max-steps": 120, "batch-size": 4, "image-size-px": 64, "n-draws": 4,
    "max-pool": 200, "max-held-out": 80, "random-share": 0.1,
}  # fmt: skip
# A table whose prompts describe single images would tell the model where to look.
PROMPTS = {"clinicdb": "a polyp in a colonoscopy image"}
COPIED = ("results.csv", "learning_curve.svg", "penalty_matrix.svg", "settings.json")

Table = Sequence[Outcome]


def simulate(folder: Path, arguments: argparse.Namespace) -> None:
    options = [text for name, value in SETTINGS.items() for text in (f"--{name}", str(value))]
    if folder.name in PROMPTS:
        options += ["--prompt", PROMPTS[folder.name]]
    command = [
        sys.executable, "-m", "simulation", str(folder), "--strategies", "all", "--seeds", str(arguments.seeds),
        "--jobs", str(arguments.jobs), "--out", str(arguments.out / folder.name), *options,
    ]  # fmt: skip
    subprocess.run(command, check=True)


def collect(found: Path, target: Path) -> None:
    """Tables, figures and reports of every set, and one page over all of them; what was asked for shows images."""
    tables: dict[str, Table] = {}
    for folder in sorted(path.parent for path in found.glob("*/results.csv")):
        place = target / folder.name
        place.mkdir(parents=True, exist_ok=True)
        for name in COPIED:
            shutil.copyfile(folder / name, place / name)
        (place / "report.md").write_text(_without_pictures((folder / "report.md").read_text("utf-8")), "utf-8")
        tables[folder.name] = read_table(folder / "results.csv")
    text = "\n\n".join([_sets(tables, target), _areas(tables), _together(tables)])
    (target / "tables.md").write_text(text + "\n", "utf-8")


def _without_pictures(report: str) -> str:
    sections = report.split("\n## ")
    return "\n## ".join(section for section in sections if "asked.png" not in section).rstrip() + "\n"


def _sets(tables: Mapping[str, Table], target: Path) -> str:
    """What can be reached: Dice with the seed set, at the end by chance, and with all labels."""
    lines = [
        "| set | pool | groups | held out | groups | Dice, first labels | Dice, `random` at the end | Dice, all labels "
        f"| labels of `random` to {REACHED:.0%} of that |",
        "|---" * 9 + "|",
    ]
    for name, outcomes in tables.items():
        settings = json.loads((target / name / "settings.json").read_text("utf-8"))
        curve, whole = curves(outcomes, "dice")[RANDOM], with_all(outcomes, "dice")
        budget = budget_to(curve, REACHED * (whole or 1.0))
        sizes = [settings[key] for key in ("pool_images", "pool_groups", "held_out_images", "held_out_groups")]
        first, last = (sum(values) / len(values) for values in (curve[0][1], curve[-1][1]))
        reached = f"more than {curve[-1][0]}" if budget is None else f"{budget:.0f}"
        cells = [*map(str, sizes), f"{first:.3f}", f"{last:.3f}", f"{whole:.3f}" if whole else "–", reached]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _areas(tables: Mapping[str, Table]) -> str:
    """Against foreground-aware random, set by set: mean difference of the area under the Dice curve, and interval."""
    lines = ["| strategy | " + " | ".join(tables) + " |", "|---" * (len(tables) + 1) + "|"]
    for name in _names(tables):
        cells = []
        for outcomes in tables.values():
            found = areas(outcomes, "dice")
            cells.append(_against(found.get(name, {}), found[FOREGROUND_RANDOM], name == FOREGROUND_RANDOM))
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _together(tables: Mapping[str, Table]) -> str:
    """Over all sets and seeds: against both kinds of chance, and the mean place among the strategies."""
    found = {name: areas(outcomes, "dice") for name, outcomes in tables.items()}
    places = _places(found)
    lines = ["| strategy | against `random` | against `foreground_random` | mean place |", "|---|---|---|---|"]
    for name in sorted(places, key=lambda each: places[each]):
        cells = [_against(_keyed(found, name), _keyed(found, other), name == other) for other in BASELINES]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {places[name]:.1f} |")
    return "\n".join(lines)


def _keyed(found: Mapping[str, Mapping[str, Mapping[int, float]]], name: str) -> dict[int, float]:
    """One value per set and seed."""
    return {
        10_000 * at + seed: value
        for at, areas_of in enumerate(found.values())
        for seed, value in areas_of.get(name, {}).items()
    }


def _places(found: Mapping[str, Mapping[str, Mapping[int, float]]]) -> dict[str, float]:
    """Mean place over sets and seeds, 1 the best."""
    all_places: dict[str, list[int]] = {}
    for areas_of in found.values():
        for seed in next(iter(areas_of.values())):
            order = sorted((name for name in areas_of if seed in areas_of[name]), key=lambda n: -areas_of[n][seed])
            for place, name in enumerate(order, start=1):
                all_places.setdefault(name, []).append(place)
    return {name: sum(places) / len(places) for name, places in all_places.items()}


def _names(tables: Mapping[str, Table]) -> list[str]:
    there = {outcome.strategy for outcomes in tables.values() for outcome in outcomes} - {ALL}
    return sorted(there, key=lambda name: (name not in BASELINES, name))


def _against(ours: Mapping[int, float], theirs: Mapping[int, float], itself: bool) -> str:
    """Mean difference and its interval; bold where the interval leaves 0 out."""
    found = None if itself else difference(ours, theirs)
    if found is None:
        return "–"
    mark = "**" if found.better or found.worse else ""
    within = f" [{found.interval[0]:+.3f}, {found.interval[1]:+.3f}]" if found.interval else ""
    return f"{mark}{found.mean:+.3f}{mark}{within}"


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("grid"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--collect", type=Path, help="folder for tables and figures")
    arguments = parser.parse_args()
    print(f"strategies: {', '.join(strategies.names())}")
    for folder in arguments.folders:
        simulate(folder, arguments)
    if arguments.collect:
        collect(arguments.out, arguments.collect)


if __name__ == "__main__":
    main()
