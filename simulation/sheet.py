"""What each strategy asked for, as pictures: people would rather look than read a list of ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import model
from simulation.dataset import Pair
from simulation.loop import ALL, Record

SIDE_PX, GAP_PX, CAPTION_PX = 96, 4, 14
MOST = 10  # images a row
_OUTLINE = (255, 210, 0)


def write(folder: Path, records: Sequence[Record], pool: Sequence[Pair]) -> Path | None:
    """Write `asked.png` into the folder: a row per strategy, its first query with the lowest seed, masks outlined.

    Returns its path; None where no strategy asked for anything. Images by chance have a grey frame.
    """
    rows = _first_queries(records)
    if not rows:
        return None
    pairs = {pair.id: pair for pair in pool}
    height = (SIDE_PX + CAPTION_PX + GAP_PX) * len(rows) + GAP_PX
    page = Image.new("RGB", ((SIDE_PX + GAP_PX) * MOST + GAP_PX, height), "white")
    for number, (name, record) in enumerate(rows.items()):
        _draw_row(page, GAP_PX + number * (SIDE_PX + CAPTION_PX + GAP_PX), name, record, pairs)
    path = folder / "asked.png"
    page.save(path)
    return path


def _first_queries(records: Sequence[Record]) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for record in sorted(records, key=lambda r: (r.outcome.strategy, r.outcome.seed, r.outcome.round)):
        if record.outcome.strategy != ALL and record.asked:
            found.setdefault(record.outcome.strategy, record)
    return found


def _draw_row(page: Image.Image, top: int, name: str, record: Record, pairs: Mapping[str, Pair]) -> None:
    draw = ImageDraw.Draw(page)
    draw.text((GAP_PX, top), f"{name}, after {record.outcome.n_labels} labels", fill="black")
    for place, asked in enumerate(record.asked[:MOST]):
        left = GAP_PX + place * (SIDE_PX + GAP_PX)
        page.paste(_thumbnail(pairs[asked.id]), (left, top + CAPTION_PX))
        if asked.by_chance:
            box = (left, top + CAPTION_PX, left + SIDE_PX - 1, top + CAPTION_PX + SIDE_PX - 1)
            draw.rectangle(box, outline="grey", width=3)


def _thumbnail(pair: Pair) -> Image.Image:
    """The image with the outline of its true mask; a file that cannot be read leaves its place grey."""
    try:
        image, mask = model.read_image(pair.image), model.read_mask(pair.mask)
    except model.ModelError:
        return Image.new("RGB", (SIDE_PX, SIDE_PX), "lightgrey")
    grey = image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)
    small = np.array(Image.fromarray(grey).convert("RGB").resize((SIDE_PX, SIDE_PX)))
    inside = np.array(Image.fromarray(mask).resize((SIDE_PX, SIDE_PX), Image.Resampling.NEAREST))
    small[_edge(inside)] = _OUTLINE
    return Image.fromarray(small)


def _edge(mask: np.ndarray) -> np.ndarray:
    """Pixels of the mask with a neighbour outside it."""
    padded = np.pad(mask, 1)
    within = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~within)
