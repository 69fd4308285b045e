"""What to do with images in which the model predicts nothing: each value of the setting `empty`, as labels grow.

    python benchmarks/empty_images.py FOLDER [--out empty-images] [--seeds 5] [--jobs 0] [--with-object 0.3]

FOLDER is a labelled one (`pairs.csv`), in which every image shows its object. A second set is cut from it, as screening
would have it: windows of half the side, of which a share shows the object and the others have an empty mask. On both,
`clasp_pe` runs with each value of `empty` beside both kinds of random. Prints the area under the Dice curve of each.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from benchmarks.grid import PROMPTS, SETTINGS
from model import read_image, read_mask
from simulation.dataset import read_folder
from simulation.results import read_table
from simulation.statistics import areas, difference
from strategies.strata import Empty

VARIANTS = [f"clasp_pe:empty={value}" for value in get_args(Empty)]
BASELINE = "foreground_random"


def window(mask: np.ndarray, with_object: bool, rng: np.random.Generator) -> tuple[int, int, int, int] | None:
    """Left, upper, right, lower of a window of half the side, around the object or beside it; None if there is none."""
    height, width = mask.shape[0] // 2, mask.shape[1] // 2
    if with_object:
        rows, columns = np.nonzero(mask)
        top = int(np.clip(rows.mean() - height / 2, 0, mask.shape[0] - height))
        left = int(np.clip(columns.mean() - width / 2, 0, mask.shape[1] - width))
        return left, top, left + width, top + height
    for _ in range(50):
        top, left = (
            int(rng.integers(0, whole - part + 1)) for whole, part in zip(mask.shape, (height, width), strict=True)
        )
        if not mask[top : top + height, left : left + width].any():
            return left, top, left + width, top + height
    return None


def cut(source: Path, prompt: str | None, target: Path, share: float) -> None:
    """Write the set of windows: of every image one, with the object in a share of them."""
    rng = np.random.default_rng(0)
    rows = []
    target.mkdir(parents=True, exist_ok=True)
    for pair in read_folder(source, prompt):
        image, mask = read_image(pair.image), read_mask(pair.mask)
        box = window(mask, bool(rng.random() < share), rng)
        if box is None:
            continue
        names = f"{len(rows)}-image.png", f"{len(rows)}-mask.png"
        Image.fromarray(np.asarray(image)).crop(box).save(target / names[0])
        Image.fromarray(mask.astype(np.uint8) * 255).crop(box).save(target / names[1])
        rows.append([pair.id, *names, pair.group, pair.prompt])
    with (target / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "image", "mask", "group", "prompt"], *rows])


def simulate(folder: Path, prompt: str | None, out: Path, arguments: argparse.Namespace) -> None:
    options = [text for name, value in SETTINGS.items() for text in (f"--{name}", str(value))]
    options += ["--prompt", prompt] if prompt else []
    command = [
        sys.executable, "-m", "simulation", str(folder), "--strategies", ",".join(["random", BASELINE, *VARIANTS]),
        "--seeds", str(arguments.seeds), "--jobs", str(arguments.jobs), "--out", str(out), *options,
    ]  # fmt: skip
    subprocess.run(command, check=True)


def row(out: Path) -> str:
    found = areas(read_table(out / "results.csv"), "dice")
    cells = []
    for name in ("random", BASELINE, *VARIANTS):
        against = difference(found[name], found[BASELINE])
        text = f"{np.mean(list(found[name].values())):.3f}"
        if name != BASELINE and against is not None and against.interval is not None:
            text += f" ({against.mean:+.3f} [{against.interval[0]:+.3f}, {against.interval[1]:+.3f}])"
        cells.append(text)
    return f"| {out.name} | {' | '.join(cells)} |"


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("empty-images"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--with-object", type=float, default=0.3, help="share of the windows (default: %(default)s)")
    arguments = parser.parse_args()
    prompt = PROMPTS.get(arguments.folder.name)
    windows = arguments.out / "windows-data"
    if not (windows / "pairs.csv").exists():
        cut(arguments.folder, prompt, windows, arguments.with_object)
    outs = {"whole": arguments.folder, "windows": windows}
    for name, folder in outs.items():
        simulate(folder, prompt, arguments.out / name, arguments)
    print(f"| set | random | {BASELINE} | " + " | ".join(f"`{name}`" for name in VARIANTS) + " |")
    print("|---" * (len(VARIANTS) + 3) + "|")
    for name in outs:
        print(row(arguments.out / name))


if __name__ == "__main__":
    main()
