"""How much of the work of 30 draws an image a query needs, and whether it still asks for the same images.

    PYTHONPATH=. python benchmarks/adaptive_draws.py --data ../shared/data/clinicdb

Trains `tiny` on a few labelled images, ranks a pool of others (of other groups) by several scores, and compares the
query of `model.rank_adaptively` with the query of 30 draws for everybody: the share of images in common, and the passes
per image. Beside it what the same or fewer passes give when everybody gets equally many, and how far two rankings by 30
draws of different seeds agree, beyond which nothing can be expected to go. The 30 draws of all images are computed once
and dealt out; the last lines time a real climb, images read from disk. Without --data phantoms are drawn.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

import model
from demo.phantoms import write_dataset
from simulation.dataset import Pair, read_pairs
from strategies import acquisition, reduction

ALL_DRAWS = 30
FLAT = (1, 3, 6)
Score = Callable[[np.ndarray], float]


def _score(to_map: Callable[[np.ndarray], np.ndarray], reduce: Callable[[np.ndarray, np.ndarray], float]) -> Score:
    return lambda draws: reduce(to_map(draws), acquisition.mean_probability(draws))


SCORES: dict[str, Score] = {
    "entropy, boundary": _score(acquisition.predictive_entropy, reduction.foreground_boundary),
    "bald, boundary": _score(acquisition.bald, reduction.foreground_boundary),
    "bald, mean": _score(acquisition.bald, lambda uncertainty, _: reduction.mean(uncertainty)),
    "bald, top 5 %": _score(acquisition.bald, lambda uncertainty, _: reduction.mean_of_top(uncertainty, 0.05)),
}


def split(pairs: Sequence[Pair], labelled: int, pool: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Some pairs to learn from and some to rank; no group is on both sides."""
    rng = np.random.default_rng(seed)
    groups = sorted({pair.group for pair in pairs})
    rng.shuffle(groups)
    known = set(groups[: max(1, len(groups) // 4)])
    sides = [pair for pair in pairs if pair.group in known], [pair for pair in pairs if pair.group not in known]
    learn, rank = ([side[i] for i in rng.permutation(len(side))] for side in sides)
    return learn[:labelled], rank[:pool]


def train(pairs: Sequence[Pair], seconds: float, seed: int) -> model.Segmenter:
    start = model.Segmenter.create(model.ModelConfig(), seed=seed)
    examples = [model.Example(pair.image, pair.mask, pair.prompt, pair.group) for pair in pairs]
    return model.fine_tune(start, examples, model.TrainConfig(seed=seed, time_limit_seconds=seconds))


def top(scores: np.ndarray, size: int) -> set[int]:
    return set(np.argsort(-scores, kind="stable")[:size].tolist())


def overlap(one: set[int], other: set[int]) -> float:
    return len(one & other) / len(other)


def climb(draws: np.ndarray, size: int, score: Score) -> tuple[set[int], float]:
    """The query and the passes per image when the draws (n, 30, h, w) are dealt out."""

    def deal(positions: Sequence[int], numbers: range) -> Iterator[np.ndarray]:
        return (draws[position, numbers.start : numbers.stop] for position in positions)

    ranking = model.rank_adaptively(len(draws), size, deal, score)
    return set(ranking.order[:size].tolist()), ranking.passes / len(draws)


def compare(draws_by_seed: Sequence[np.ndarray], size: int) -> None:
    heads = [f"flat {n}" for n in FLAT]
    print(f"\n{'score':18s} {'overlap':>8s} {'least':>6s} {'passes':>7s} {'saved':>6s} | ", end="")
    print(" ".join(f"{head:>7s}" for head in heads), "| 30, other seed")
    for name, score in SCORES.items():
        full = [np.array([score(d) for d in draws]) for draws in draws_by_seed]
        climbs = [climb(draws, size, score) for draws in draws_by_seed]
        same = [overlap(query, top(scores, size)) for (query, _), scores in zip(climbs, full, strict=True)]
        passes = float(np.mean([passes for _, passes in climbs]))
        flat = [
            np.mean(
                [
                    overlap(top(np.array([score(d[:n]) for d in draws]), size), top(scores, size))
                    for draws, scores in zip(draws_by_seed, full, strict=True)
                ]
            )
            for n in FLAT
        ]
        noise = [overlap(top(full[0], size), top(other, size)) for other in full[1:]]
        print(
            f"{name:18s} {np.mean(same):8.3f} {min(same):6.2f} {passes:7.2f} {ALL_DRAWS / passes:5.1f}x |",
            " ".join(f"{value:7.3f}" for value in flat),
            f"| {np.mean(noise) if noise else float('nan'):.3f}",
            flush=True,
        )


def time_both(segmenter: model.Segmenter, pool: Sequence[Pair], size: int) -> None:
    """Seconds of a real climb, and of 30 draws for everybody, images read from disk for both."""

    def load(position: int) -> tuple[np.ndarray, list[str]]:
        return model.read_image(pool[position].image), [pool[position].prompt]

    print()
    for name, score in SCORES.items():
        if "boundary" not in name:
            continue
        seconds = []
        for plan in (model.DrawPlan(), model.DrawPlan((ALL_DRAWS,), ALL_DRAWS)):
            began = time.perf_counter()
            model.rank_pool(segmenter, load, len(pool), size, score, plan=plan)
            seconds.append(time.perf_counter() - began)
        ratio = seconds[1] / seconds[0]
        print(f"{name}: {seconds[0]:.1f} s instead of {seconds[1]:.1f} s, {ratio:.1f}x, reading and scoring included")


def run(folder: Path, options: argparse.Namespace) -> None:
    learn, pool = split(read_pairs(folder), options.labelled, options.pool, seed=0)
    size = max(1, round(options.query_share * len(pool)))
    segmenter = train(learn, options.train_seconds, seed=0)
    print(f"\n== {folder.name}: {len(learn)} labelled images, a pool of {len(pool)}, a query of {size}", flush=True)
    pictures = [(model.read_image(pair.image), [pair.prompt]) for pair in pool]
    draws = [
        np.stack([found[:, 0] for found in segmenter.draw(pictures, ALL_DRAWS, seed)]) for seed in range(options.seeds)
    ]
    compare(draws, size)
    if not options.no_timing:
        time_both(segmenter, pool, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", help="folders with pairs.csv, images and masks")
    parser.add_argument("--labelled", type=int, default=40)
    parser.add_argument("--pool", type=int, default=250)
    parser.add_argument("--query-share", type=float, default=0.1, help="of the pool")
    parser.add_argument("--seeds", type=int, default=2, help="of the noise")
    parser.add_argument("--train-seconds", type=float, default=45.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-timing", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.data:
        for folder in options.data:
            run(folder, options)
        return
    with tempfile.TemporaryDirectory() as folder:
        print("phantoms, for want of --data", file=sys.stderr)
        run(write_dataset(Path(folder) / "phantoms", n=options.pool * 4 // 3 + options.labelled * 2), options)


if __name__ == "__main__":
    main()
