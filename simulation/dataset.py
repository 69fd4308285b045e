"""A labelled folder: `pairs.csv` beside images and masks, or `images/` and `masks/` with files of the same names."""

import csv
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from simulation.errors import BadDataset

COLUMNS = ("id", "image", "mask", "group", "prompt")
_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Pair:
    """One image with its true mask. `group` is what must not straddle train and held-out: a patient, video, volume."""

    id: str
    image: Path
    mask: Path
    group: str
    prompt: str


def read_folder(folder: Path, prompt: str | None = None) -> list[Pair]:
    """The pairs of a labelled folder, by its table or, without one, by the names of its files.

    prompt: takes the place of every prompt of the table; a folder without a table needs one, and there each image is a
    group of its own. Raises BadDataset.
    """
    if (folder / "pairs.csv").is_file() or not (folder / "images").is_dir():
        pairs = read_pairs(folder)
        return pairs if prompt is None else [replace(pair, prompt=prompt) for pair in pairs]
    if not prompt:
        raise BadDataset(f"{folder} has no pairs.csv to say what its masks show; give --prompt, as 'a polyp'")
    return _pairs_by_name(folder, prompt)


def read_pairs(folder: Path) -> list[Pair]:
    """The rows of `folder/pairs.csv` in file order; columns beyond id, image, mask, group, prompt are ignored.

    Paths in the file are relative to the folder and must stay inside it. Raises BadDataset naming the file, line or
    column that is wrong; images are only looked for, not opened.
    """
    table = folder / "pairs.csv"
    if not table.is_file():
        raise BadDataset(f"{table} does not exist; a labelled folder needs pairs.csv with columns {', '.join(COLUMNS)}")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            pairs = _rows(folder, table, csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadDataset(f"{table} is not a comma-separated table in UTF-8: {error}") from error
    if not pairs:
        raise BadDataset(f"{table} has no rows below its header; list at least one image")
    _refuse_repeated_ids(table, pairs)
    return pairs


def fewer(pairs: Sequence[Pair], most: int | None) -> list[Pair]:
    """At most so many of the pairs, chosen by the hash of their ids and in their old order: the same each time."""
    if most is None or most >= len(pairs):
        return list(pairs)
    kept = set(sorted((pair.id for pair in pairs), key=digest)[:most])
    return [pair for pair in pairs if pair.id in kept]


def fingerprint(pairs: Sequence[Pair]) -> str:
    """Which images with which groups and prompts these are, whatever folder they lie in."""
    return digest(repr([(pair.id, pair.group, pair.prompt) for pair in pairs]))


def digest(text: str) -> str:
    """A number in hexadecimal that belongs to the text, for ever."""
    return hashlib.sha256(text.encode()).hexdigest()


def _pairs_by_name(folder: Path, prompt: str) -> list[Pair]:
    images, masks = (_by_stem(folder / name) for name in ("images", "masks"))
    alone = sorted(images.keys() ^ masks.keys())
    if alone or not images:
        what = f"{', '.join(alone[:5])} without a partner" if alone else "no pictures"
        raise BadDataset(f"{folder}: images/ and masks/ must hold files of the same names, but there are {what}")
    return [Pair(stem, images[stem], masks[stem], stem, prompt) for stem in sorted(images)]


def _by_stem(folder: Path) -> dict[str, Path]:
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [path for path in there if path.suffix.lower() in _ENDINGS]
    twice = [name for name, count in Counter(path.stem for path in found).items() if count > 1]
    if twice:
        raise BadDataset(f"{folder} holds {', '.join(twice[:5])} twice, with different endings; keep one of each")
    return {path.stem: path for path in found}


def _rows(folder: Path, table: Path, reader: "csv.DictReader[str]") -> list[Pair]:
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise BadDataset(f"{table} has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
    return [_pair(folder, row, f"{table}, line {reader.line_num}") for row in reader]


def _pair(folder: Path, row: dict[str, str | None], where: str) -> Pair:
    value = {column: (row[column] or "").strip() for column in COLUMNS}
    empty = [column for column in COLUMNS if not value[column]]
    if empty:
        raise BadDataset(f"{where}: nothing in column {', '.join(empty)}")
    return Pair(
        id=value["id"],
        image=_inside(folder, value["image"], where),
        mask=_inside(folder, value["mask"], where),
        group=value["group"],
        prompt=value["prompt"],
    )


def _inside(folder: Path, name: str, where: str) -> Path:
    # Links are followed: whoever links an image folder elsewhere means it. A path that climbs out is a mistake.
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise BadDataset(f"{where}: {name} points outside the folder; use a path relative to pairs.csv")
    path = folder / name
    if not path.is_file():
        raise BadDataset(f"{where}: {path} does not exist")
    return path


def _refuse_repeated_ids(table: Path, pairs: list[Pair]) -> None:
    repeated = [name for name, count in Counter(pair.id for pair in pairs).items() if count > 1]
    if repeated:
        raise BadDataset(f"{table}: id {', '.join(repeated[:5])} occurs more than once; ids must be unique")
