"""What runs leave behind: an Outcome per model and test set, each a JSON file that is there whole or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocols.errors import BadResults

MEASURES = ("dice", "nsd_released", "nsd", "iou", "hd95", "brier", "ece", "aurc")


@dataclass(frozen=True)
class Outcome:
    """One model on one test set. Measures are means over its images, dice to aurc as in `model.Metrics`.

    source: the data set trained on, "" for a checkpoint that was given; steps and seconds: of its training, None
    where they are not known.
    """

    model: str
    source: str
    data: str
    split: str
    prompts: str
    percent: int
    seed: int
    n_train: int
    n_test: int
    n_test_groups: int
    steps: int | None
    seconds: float | None
    dice: float
    nsd_released: float
    nsd: float
    iou: float
    hd95: float
    brier: float
    ece: float
    aurc: float
    notes: tuple[str, ...] = ()


def outcomes(out: Path) -> list[Outcome]:
    """Every outcome kept in the folder, in an order that does not depend on when each was made.

    Raises BadResults, also where two of them would be taken for repetitions of one run and are not.
    """
    found: dict[tuple[object, ...], Path] = {}
    for path in sorted((out / "runs").glob("*.json")):
        o = load(path)
        label = (o.model, o.source, o.data, o.split, o.prompts, o.percent, o.seed)
        if label in found:
            raise BadResults(
                f"{found[label]} and {path} are the same run on other images or by another version; "
                "remove the one that is not meant, or choose another --out"
            )
        found[label] = path
    return [load(found[label]) for label in sorted(found)]


def key_of(settings: dict[str, Any]) -> str:
    """A short name for these settings: equal settings have equal names."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def load(path: Path) -> Outcome:
    """One outcome. Raises BadResults."""
    content = read(path)
    try:
        values = dict(content["outcome"])
        return Outcome(**{**values, "notes": tuple(values["notes"])})
    except (KeyError, TypeError) as error:
        raise BadResults(
            f"{path} is no result of this program ({error!r}); remove it or choose another --out"
        ) from error


def read(path: Path) -> dict[str, Any]:
    """The content of a JSON file of ours. Raises BadResults."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BadResults(f"{path} cannot be read ({error}); remove it, and its run is done again") from error


def write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON in one step, so that an interruption leaves the whole file or none."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
