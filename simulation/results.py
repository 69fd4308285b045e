"""The output folder: a file per arm, one table of all, and the settings under which they were made."""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Any

from simulation.errors import BadResults
from simulation.loop import Asked, Judged, Outcome, Record

COLUMNS = [field.name for field in fields(Outcome)]


def load_arm(folder: Path, strategy: str, seed: int) -> list[Record]:
    """The finished rounds of an arm, from 0 on; none when it has not begun. Raises BadResults."""
    path = _arm_file(folder, strategy, seed)
    if not path.exists():
        return []
    try:
        return [_record(item) for item in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, KeyError, TypeError) as error:
        raise BadResults(f"{path} cannot be read ({error!r}); remove it, and the arm is run again") from error


def save_arm(folder: Path, records: Sequence[Record]) -> None:
    """Replace the file of the records' arm in one step: an interruption leaves the old rounds or the new ones."""
    first = records[0].outcome
    path = _arm_file(folder, first.strategy, first.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps([asdict(record) for record in records]), encoding="utf-8")
    temporary.replace(path)


def write_table(folder: Path, records: Iterable[Record]) -> None:
    """Write `folder/results.csv`: a row per round, by strategy, seed and round."""
    outcomes = sorted((record.outcome for record in records), key=lambda o: (o.strategy, o.seed, o.round))
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(outcome) for outcome in outcomes)


def read_table(path: Path) -> list[Outcome]:
    """The rows of a results.csv. Raises BadResults."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_outcome(row) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadResults(f"{path} is not a table of this program ({error!r})") from error


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


def _arm_file(folder: Path, strategy: str, seed: int) -> Path:
    return folder / "arms" / f"{re.sub('[^a-z0-9_.]', '-', strategy)}-{seed}.json"


def _record(item: Mapping[str, Any]) -> Record:
    return Record(
        outcome=Outcome(**item["outcome"]),
        images=tuple(Judged(**image) for image in item["images"]),
        asked=tuple(Asked(**asked) for asked in item["asked"]),
    )


def _outcome(row: Mapping[str, str]) -> Outcome:
    kinds = {field.name: field.type for field in fields(Outcome)}
    read = {"str": str, "int": int, "float": float, str: str, int: int, float: float}
    return Outcome(**{name: read[kind](row[name]) for name, kind in kinds.items()})
