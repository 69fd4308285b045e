"""Which images the demo works on: phantoms drawn for it, or a part of a labelled folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from demo import phantoms
from demo.errors import BadData
from simulation.dataset import Pair, read_pairs
from simulation.errors import BadDataset

# Said to the model when the folder has a prompt of its own for each image: those tell where the lesion lies, which
# nobody knows before looking.
PLAIN_PROMPT = "a lesion"


@dataclass(frozen=True)
class Dataset:
    """The images with their true masks; `synthetic` when they are phantoms. `prompt` is what the model is told."""

    pairs: tuple[Pair, ...]
    prompt: str
    synthetic: bool


def load(folder: Path | None, n_images: int, scratch: Path) -> Dataset:
    """`n_images` images of `folder`, or as many phantoms written to `scratch`. Raises BadData."""
    try:
        pairs = read_pairs(folder or phantoms.write_dataset(scratch, n_images))
    except BadDataset as error:
        raise BadData(str(error)) from error
    prompts = {pair.prompt for pair in pairs}
    return Dataset(
        pairs=subset(pairs, n_images),
        prompt=prompts.pop() if len(prompts) == 1 else PLAIN_PROMPT,
        synthetic=folder is None,
    )


def subset(pairs: Sequence[Pair], n_images: int) -> tuple[Pair, ...]:
    """`n_images` pairs, spread over the groups as evenly as they allow: the first of each group, then the second, …

    Neighbouring frames of one video say little new, and held-out images are chosen by group.
    """
    seen: dict[str, int] = {}
    turns = []
    for position, pair in enumerate(pairs):
        turn = seen[pair.group] = seen.get(pair.group, -1) + 1
        turns.append((turn, position))
    chosen = sorted(position for _, position in sorted(turns)[:n_images])
    return tuple(pairs[position] for position in chosen)


def true_mask(pair: Pair) -> np.ndarray:
    """(H, W) bool in the image frame. Raises BadData when it does not fit its image."""
    with Image.open(pair.image) as image:
        size = image.size
    with Image.open(pair.mask) as mask:
        if mask.size != size:
            raise BadData(f"{pair.mask} is {mask.size}, its image {pair.image} is {size}; they must be the same")
        return np.asarray(mask.convert("L")) >= 128
