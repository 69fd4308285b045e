"""How many planted label errors are among the first tenth of what `wardround label-errors` would name.

    python benchmarks/label_errors.py FOLDER [FOLDER …] [--images 240] [--steps 200] [--folds 3] [--seed 0]

Each folder is a labelled one (`pairs.csv`). A tenth of its annotations is spoilt, a quarter of these each way: shifted
by a third of its extent, dilated to twice its area, missing, swapped with that of an image of another group. The others
stay as they are, with whatever errors they came with. Prints a row per folder: planted errors found in the first tenth,
in the first fifth, by kind, and the mean Dice of the out-of-fold model with the masks that were left alone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend.crossfit import Opinion, judge_fold
from evidence.label_errors import folds, suspicion
from model import Example, ModelConfig, Segmenter, TrainConfig, read_mask
from simulation.dataset import fewer, read_folder
from tests.planting import KINDS, SHARE, found, planted


def ranking(opinions: Sequence[Opinion], groups: Sequence[str]) -> NDArray[np.intp]:
    """Positions, the likeliest error first."""
    scores = suspicion([one.disagreement.excess for one in opinions], [one.confidence for one in opinions], groups)
    return np.argsort(-scores, kind="stable")


def judge(examples: Sequence[Example], start: Segmenter, config: TrainConfig, n_folds: int) -> list[Opinion]:
    """An opinion on each example by a model that did not train on its group."""
    fold_of = folds([one.group for one in examples], n_folds, rng=np.random.default_rng(config.seed))
    opinions: dict[int, Opinion] = {}
    for fold in range(n_folds):
        opinions |= judge_fold(start, examples, fold_of, fold, config)
    return [opinions[at] for at in range(len(examples))]


def measure(folder: Path, work: Path, arguments: argparse.Namespace) -> str:
    pairs = fewer(read_folder(folder, arguments.prompt), arguments.images)
    rng = np.random.default_rng(arguments.seed)
    true = [read_mask(pair.mask) for pair in pairs]
    spoilt, kinds = planted(true, [pair.group for pair in pairs], rng)
    examples = []
    for at, (pair, mask) in enumerate(zip(pairs, spoilt, strict=True)):
        path = work / f"{folder.name}-{at}.png"
        Image.fromarray(mask).save(path)
        examples.append(Example(pair.image, path, pair.prompt, pair.group))
    config = TrainConfig(seed=arguments.seed, max_steps=arguments.steps, time_limit_seconds=None)
    start = Segmenter.create(ModelConfig(), seed=arguments.seed)
    opinions = judge(examples, start, config, arguments.folds)
    order = ranking(opinions, [pair.group for pair in pairs])
    first, fifth = found(order, kinds, SHARE), found(order, kinds, 2 * SHARE)
    n = sum(map(bool, kinds))
    by_kind = ", ".join(f"{kind} {first.count(kind)}/{kinds.count(kind)}" for kind in KINDS)
    sound = [one.disagreement.dice for one, kind in zip(opinions, kinds, strict=True) if not kind]
    return (
        f"| {folder.name} | {len(pairs)} | {np.mean(sound):.2f} | {len(first)}/{n} = {len(first) / n:.0%} "
        f"| {len(fifth) / n:.0%} | {by_kind} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--images", type=int, default=240, help="of each folder at most")
    parser.add_argument("--steps", type=int, default=200, help="optimiser steps of each fold")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompt", help="takes the place of the folders' own")
    arguments = parser.parse_args()
    print("| set | images | Dice, sound ones | first 10 % | first 20 % | by kind, first 10 % |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        for folder in arguments.folders:
            print(measure(folder, Path(work), arguments), flush=True)


if __name__ == "__main__":
    main()
