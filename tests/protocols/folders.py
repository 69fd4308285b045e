"""Data sets of a few small images in both layouts: a bright disc on noise, its mask, a sentence."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from openpyxl import Workbook
from PIL import Image

HEADER = ("Image", "Description", "Ground Truth")
Row = Sequence[object]


def write_pair(image: Path, mask: Path, seed: int) -> None:
    """An image of 40 × 48 px and its mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :48]
    disc = (y - rng.integers(12, 28)) ** 2 + (x - rng.integers(12, 36)) ** 2 < 81
    pixels = rng.integers(0, 80, (40, 48, 3)) + 150 * disc[:, :, None]
    for path, array in ((image, pixels.astype(np.uint8)), (mask, disc.astype(np.uint8) * 255)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def write_table(path: Path, rows: Sequence[Row], header: Row = HEADER) -> None:
    book = Workbook()
    sheet = book.active
    for row in (header, *rows):
        sheet.append(list(row))
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)


def write_published(folder: Path, train: int = 4, val: int = 2, test: int = 3, percent: int = 50) -> Path:
    """The published layout, with one list for `percent` and one further prompt design."""
    seed = sum(folder.name.encode())
    for part, size in (("Train", train), ("Val", val), ("Test", test)):
        names = [f"{part.lower()} ({number}).png" for number in range(size)]
        files = folder / f"{part}_Folder"
        for name in names:
            write_pair(files / "img" / name, files / "label" / f"mask {name}", seed := seed + 1)
        rows = [(name, f"one round bright disc, number {name}\n", f"mask {name}") for name in names[1:] + names[:1]]
        prompts = folder / "Prompts_Folder"
        if part == "Test":
            write_table(prompts / "Test_text_original.xlsx", rows)
            missing = [(name, "one bright disc, located in  of the image", mask) for name, _, mask in rows]
            write_table(prompts / "Test_text_missing_location.xlsx", missing)
        else:
            write_table(prompts / f"{part}_text.xlsx", rows)
            write_table(prompts / f"{part}_text_{percent}.xlsx", rows[: max(1, size * percent // 100)])
    return folder


def write_pairs(folder: Path, groups: Sequence[int], published: Sequence[str] | None = None) -> Path:
    """The layout with pairs.csv: groups[g] images in group g; `published` gives the parts in turn."""
    rows: list[tuple[str, ...]] = []
    for group, size in enumerate(groups):
        for _ in range(size):
            number = len(rows)
            image, mask = f"images/{number:03}.png", f"masks/{number:03}.png"
            write_pair(folder / image, folder / mask, seed=number)
            part = published[number % len(published)] if published else ""
            rows.append((f"{number:03}", image, mask, f"group {group}", part, f"one disc of image {number}"))
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "image", "mask", "group", "published_split", "prompt"), *rows])
    return folder
