"""What the packaged weights of `tiny` are worth: fine-tuning from them against the same network from random weights.

    PYTHONPATH=. python benchmarks/tiny_pretraining.py --data ../shared/data         (--help lists the options)

For every labelled folder below --data (a `pairs.csv` each), number of labels and seed: a third of the groups is held
out, the labelled images are drawn from the others, and both arms get the same images, order, noise and settings. The
prompt is the name of the class alone; a folder whose own prompts differ from image to image, and so say something of
the mask, gets the one in PROMPTS. Dice is the mean over at most --held-out images, in the image frame, mean path.

Steps are counted, not seconds, so that a busy machine favours no arm; the seconds are printed. 150 steps are well under
a minute of one CPU thread; with more of them random weights catch up (try --steps 350). The last table answers the
promise: at 60 labels at least 0.10 Dice above random on two sets. The exit status is 1 when it is not kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from model import Example, ModelConfig, Segmenter, Source, TrainConfig, fine_tune, read_image, read_mask
from model.metrics import dice
from simulation.dataset import Pair, read_pairs

PROMPTS = {"clinicdb": "a polyp in a colonoscopy image"}
ARMS = {"random": Source(weights="random"), "pretrained": Source()}
PROMISED_GAIN, PROMISED_SETS, PROMISED_LABELS = 0.10, 2, 60
HELD_OUT_SHARE = 0.35
CHUNK = 32  # images in memory at once


@dataclass(frozen=True)
class Run:
    """One training run: held-out Dice after it and, of the weights it began with, before it."""

    dataset: str
    labels: int
    seed: int
    arm: str
    dice: float
    dice_before: float
    seconds: float


def main() -> None:
    """Run what is missing from --out, then print the tables."""
    options = _options()
    if options.data is None:
        print("NOT MEASURED: this needs real labelled images; name their folder with --data")
        return
    torch.set_num_threads(options.threads)
    done = _read(options.out)
    for dataset in options.sets or sorted(path.parent.name for path in options.data.glob("*/pairs.csv")):
        pairs = read_pairs(options.data / dataset)
        for labels in options.labels:
            for seed in options.seeds:
                labelled, held_out = split(pairs, labels, options.held_out, seed)
                for arm in options.arms:
                    if not any((r.dataset, r.labels, r.seed, r.arm) == (dataset, labels, seed, arm) for r in done):
                        run = _run(dataset, arm, seed, labelled, held_out, options.steps)
                        done.append(run)
                        _keep(options.out, run)
                        print(_line(run), flush=True)
    print()
    print("\n".join(table(done)))
    sys.exit(0 if promise_kept(done) else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of labelled folders")
    parser.add_argument("--sets", type=lambda text: text.split(","), help="names of folders (all)")
    parser.add_argument("--labels", type=_numbers, default=[60], help="numbers of labelled images, as 15,30,60 (60)")
    parser.add_argument("--seeds", type=_numbers, default=[0, 1, 2], help="seeds (0,1,2)")
    parser.add_argument("--arms", type=lambda text: text.split(","), default=list(ARMS), help="random,pretrained")
    parser.add_argument("--steps", type=int, default=150, help="steps of fine-tuning, batches of 8 (%(default)s)")
    parser.add_argument("--held-out", type=int, default=120, help="most images to judge by (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (%(default)s)")
    parser.add_argument("--out", type=Path, help="file of finished runs, one JSON object a line; picked up again")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def split(pairs: Sequence[Pair], n_labels: int, n_held_out: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Labelled and held-out images of different groups. More labels extend fewer."""
    rng = np.random.default_rng(seed)
    groups = sorted({pair.group for pair in pairs})
    n_out = max(1, round(HELD_OUT_SHARE * len(groups)))
    out = {groups[i] for i in rng.permutation(len(groups))[:n_out]}
    inside = [pair for pair in pairs if pair.group not in out]
    outside = [pair for pair in pairs if pair.group in out]
    labelled = [inside[i] for i in rng.permutation(len(inside))[:n_labels]]
    return labelled, [outside[i] for i in rng.permutation(len(outside))[:n_held_out]]


def _run(dataset: str, arm: str, seed: int, labelled: Sequence[Pair], held_out: Sequence[Pair], steps: int) -> Run:
    start = Segmenter.create(ModelConfig(), seed=seed, source=ARMS[arm])
    settings = TrainConfig(seed=seed, max_steps=steps, time_limit_seconds=None)
    began = time.monotonic()
    taught = fine_tune(start, [_example(dataset, pair) for pair in labelled], settings)
    seconds = time.monotonic() - began
    after, before = (_dice(segmenter, dataset, held_out) for segmenter in (taught, start))
    return Run(dataset, len(labelled), seed, arm, after, before, seconds)


def _example(dataset: str, pair: Pair) -> Example:
    return Example(pair.image, pair.mask, PROMPTS.get(dataset, pair.prompt), pair.group)


def _dice(segmenter: Segmenter, dataset: str, pairs: Sequence[Pair]) -> float:
    """Mean Dice of the mean path, image frame."""
    return float(np.mean(list(_dice_per_image(segmenter, [_example(dataset, pair) for pair in pairs]))))


def _dice_per_image(segmenter: Segmenter, examples: Sequence[Example]) -> Iterator[float]:
    for start in range(0, len(examples), CHUNK):
        part = examples[start : start + CHUNK]
        images = [read_image(example.image) for example in part]
        answers = segmenter.segment_many(images, [example.prompt for example in part], n_draws=0)
        for answer, example in zip(answers, part, strict=True):
            yield dice(answer.probability >= 0.5, read_mask(example.mask))


def _read(file: Path | None) -> list[Run]:
    if file is None or not file.exists():
        return []
    return [Run(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def _keep(file: Path | None, run: Run) -> None:
    if file is not None:
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(asdict(run)) + "\n")


def _line(run: Run) -> str:
    return (
        f"{run.dataset:12} {run.labels:4} labels  seed {run.seed}  {run.arm:10}"
        f"  Dice {run.dice_before:.3f} -> {run.dice:.3f}  {run.seconds:.0f} s"
    )


def table(runs: Sequence[Run]) -> list[str]:
    """Lines of a table: per set and number of labels, mean ± standard deviation over seeds and the gain per seed."""
    lines = [f"{'set':12} {'labels':>6} {'random':>15} {'pretrained':>15} {'untaught':>9} {'gain':>7}  gain per seed"]
    for dataset, labels in sorted({(run.dataset, run.labels) for run in runs}):
        random, pretrained = (_spread(_by_seed(runs, dataset, labels, arm)) for arm in ARMS)
        gains = _gains(runs, dataset, labels)
        before = [r.dice_before for r in runs if (r.dataset, r.labels, r.arm) == (dataset, labels, "pretrained")]
        lines.append(
            f"{dataset:12} {labels:6} {random:>15} {pretrained:>15}"
            f" {np.mean(before) if before else np.nan:9.3f} {np.mean(gains) if gains else np.nan:+7.3f}"
            f"  {' '.join(f'{gain:+.3f}' for gain in gains)}"
        )
    return lines


def _by_seed(runs: Sequence[Run], dataset: str, labels: int, arm: str) -> dict[int, float]:
    return {r.seed: r.dice for r in runs if (r.dataset, r.labels, r.arm) == (dataset, labels, arm)}


def _gains(runs: Sequence[Run], dataset: str, labels: int) -> list[float]:
    random, pretrained = (_by_seed(runs, dataset, labels, arm) for arm in ARMS)
    return [pretrained[seed] - random[seed] for seed in sorted(random.keys() & pretrained.keys())]


def _spread(by_seed: dict[int, float]) -> str:
    values = list(by_seed.values())
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}" if values else "-"


def promise_kept(runs: Sequence[Run]) -> bool:
    """Whether the mean gain at the promised number of labels is large enough on enough sets."""
    gains = [_gains(runs, name, PROMISED_LABELS) for name in {run.dataset for run in runs}]
    return sum(bool(gain) and float(np.mean(gain)) >= PROMISED_GAIN for gain in gains) >= PROMISED_SETS


if __name__ == "__main__":
    main()
