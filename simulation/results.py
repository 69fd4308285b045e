"""results.csv and settings.json in the output folder: what is done, and under which settings it was."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from simulation.errors import BadResults
from simulation.loop import Outcome

COLUMNS = [field.name for field in fields(Outcome)]


def load(folder: Path) -> list[Outcome]:
    """Every row of `folder/results.csv`; none when there is no such file. Raises BadResults."""
    path = folder / "results.csv"
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_outcome(row) for row in csv.DictReader(file)]
    except (ValueError, KeyError, TypeError) as error:
        raise BadResults(f"{path} is not a table of this program ({error!r}); choose another --out") from error


def save(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Replace `folder/results.csv` in one step, so that an interruption leaves the old rows or the new ones."""
    temporary = folder / "results.csv.tmp"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(astuple(outcome) for outcome in outcomes)
    temporary.replace(folder / "results.csv")


def complete(outcomes: Sequence[Outcome], rounds: int) -> list[Outcome]:
    """The rows of the arms (strategy, seed) that have all rounds 0 to `rounds`; a broken-off arm is dropped whole."""
    done: dict[tuple[str, int], set[int]] = {}
    for outcome in outcomes:
        done.setdefault((outcome.strategy, outcome.seed), set()).add(outcome.round)
    whole = set(range(rounds + 1))
    return [outcome for outcome in outcomes if done[outcome.strategy, outcome.seed] == whole]


def keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write settings.json, or compare with the one there: rows under different settings are not one table.

    Raises BadResults naming what differs.
    """
    path = folder / "settings.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return
    try:
        earlier = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BadResults(f"{path} cannot be read ({error}); choose another --out") from error
    differing = [key for key in {**earlier, **settings} if earlier.get(key) != settings.get(key)]
    if differing:
        changes = "; ".join(f"{key} was {earlier.get(key)}, is {settings.get(key)}" for key in differing)
        raise BadResults(f"{folder} holds results under other settings ({changes}); choose another --out")


def _outcome(row: Mapping[str, str]) -> Outcome:
    return Outcome(
        strategy=row["strategy"],
        seed=int(row["seed"]),
        round=int(row["round"]),
        n_labels=int(row["n_labels"]),
        dice=float(row["dice"]),
        nsd=float(row["nsd"]),
        seconds=float(row["seconds"]),
        steps=int(row["steps"]),
    )
