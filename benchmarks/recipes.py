"""What the `corrected` recipe gains over the `released` one, and with which spread: both train on the same real images.

    PYTHONPATH=. python benchmarks/recipes.py --data ../shared/data/clinicdb ../shared/data/nuclei \
        --prompt clinicdb="a polyp in a colonoscopy image"

Each seed holds out other groups, labels other images and starts from other weights, and both recipes get all of it
alike, so their difference is taken pair by pair. Both train `tiny` from random weights for as many steps with the same
optimiser, since that of the released recipe is meant for a hundred epochs over frozen towers; what differs is the rest:
loss, colours, shrinking, padding, variations of the images. With so few labels neither sets any aside for validation.
Each is judged on the same held-out images, in the image frame, with its own inference: the corrected by its mean path,
the released by the mean of 30 draws. --arms takes more of them: "as released" has the released optimiser and batches of
24 too, the others are the corrected recipe with a single choice of the released one. Without --data phantoms are drawn.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import model
from demo.phantoms import write_dataset
from model.recipes import CORRECTED, RELEASED
from simulation.dataset import Pair, read_pairs

HELD_OUT_SHARE = 0.25
N_PHANTOMS = 160
# The optimiser that suits tiny, in place of the one that suits adapters over frozen towers.
OPTIMISER = ("batch_size", "learning_rate", "rate_schedule", "final_rate_share", "weight_decay", "max_gradient_norm")

Arm = tuple[dict[str, Any], dict[str, Any], int]
"""Fields of ModelConfig, fields of TrainConfig, and the draws it is judged by (0: the mean path)."""


def arms() -> dict[str, Arm]:
    """Name → what is trained and how, the reference first."""
    semantics = {name: value for name, value in RELEASED.training.items() if name not in OPTIMISER}
    return {
        "corrected": (dict(CORRECTED.model), dict(CORRECTED.training), 0),
        "released": (dict(RELEASED.model), semantics, 30),
        "as released": (dict(RELEASED.model), dict(RELEASED.training), 30),
        "row Dice": ({}, {"dice": "row"}, 0),
        "rotation only": ({}, {"augmentation": "rotation"}, 0),
        **{f"{name} {value}": ({name: value}, {}, 0) for name, value in RELEASED.model.items()},
    }


def split(pairs: Sequence[Pair], n_train: int, n_test: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Images to learn from and others to judge by; no group is on both sides."""
    rng = np.random.default_rng(seed)
    groups = sorted({pair.group for pair in pairs})
    rng.shuffle(groups)
    held_out: set[str] = set()
    for group in groups:
        if sum(pair.group in held_out for pair in pairs) >= HELD_OUT_SHARE * len(pairs):
            break
        held_out.add(group)
    sides = [p for p in pairs if p.group not in held_out], [p for p in pairs if p.group in held_out]
    learn, judge = ([side[i] for i in rng.permutation(len(side))] for side in sides)
    return learn[:n_train], judge[:n_test]


def quality(
    arm: Arm, learn: list[model.Example], judge: list[model.Example], steps: int, seed: int
) -> dict[str, float]:
    """Train from random weights and judge."""
    fields, training, n_draws = arm
    start = model.Segmenter.create(model.ModelConfig(**fields), seed=seed, source=model.Source(weights="random"))
    length = {"max_steps": steps, "epochs": None, "time_limit_seconds": None, "seed": seed}
    trained = model.fine_tune(start, learn, model.TrainConfig(**{**training, **length}))
    found = model.evaluate(trained, judge, n_draws=n_draws)
    return {"dice": found.dice, "nsd": found.nsd, "ece": found.ece}


def examples(pairs: Sequence[Pair], prompt: str | None) -> list[model.Example]:
    """With one prompt for all, where one is given."""
    return [model.Example(pair.image, pair.mask, prompt or pair.prompt, pair.group) for pair in pairs]


def runs(options: argparse.Namespace, folders: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """One record for each set, seed and arm; those that are in --out already are not run again."""
    finished = _finished(options.out)
    for folder in folders:
        pairs = read_pairs(folder)
        for seed in range(options.seeds):
            sides = split(pairs, options.labelled, options.held_out, seed)
            learn, judge = (examples(side, options.prompt.get(folder.name)) for side in sides)
            for name in options.arms:
                key = {"set": folder.name, "seed": seed, "arm": name, "steps": options.steps, "labelled": len(learn)}
                known = [record for record in finished if key.items() <= record.items()]
                if known:
                    yield known[0]
                    continue
                print(f"{folder.name}, seed {seed}, {name} …", file=sys.stderr, flush=True)
                record = key | quality(arms()[name], learn, judge, options.steps, seed)
                _keep(record, options.out)
                yield record


def _finished(file: Path | None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file and file.exists() else []


def _keep(record: dict[str, Any], file: Path | None) -> None:
    if file:
        with file.open("a") as lines:
            lines.write(json.dumps(record) + "\n")


def report(records: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    """Per set and arm: mean Dice and NSD, and by how much the corrected recipe is better, seed by seed."""
    print(f"{options.labelled} labelled images, {options.steps} steps, {options.seeds} seeds; mean ± sd over seeds")
    print(f"{'set':<14}{'arm':<24}{'Dice':<16}{'NSD':<16}{'ECE':<16}{'corrected − arm, Dice':<24}each seed")
    for name in dict.fromkeys(record["set"] for record in records):
        of_set = [record for record in records if record["set"] == name]
        reference = _column(of_set, "corrected", "dice")
        for arm in dict.fromkeys(record["arm"] for record in of_set):
            cells = [f"{_spread(_column(of_set, arm, key)):<16}" for key in ("dice", "nsd", "ece")]
            gain = reference - _column(of_set, arm, "dice")
            shown = "" if arm == "corrected" else f"{_spread(gain):<24}{' '.join(f'{g:+.3f}' for g in gain)}"
            print(f"{name:<14}{arm:<24}{''.join(cells)}{shown}")


def _column(records: Sequence[dict[str, Any]], arm: str, key: str) -> np.ndarray:
    return np.array([record[key] for record in records if record["arm"] == arm])


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1) if len(values) > 1 else float('nan'):.3f}"


def _prompt(text: str) -> tuple[str, str]:
    name, separator, prompt = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PROMPT")
    return name, prompt


def _arms(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in arms()]
    if unknown or "corrected" not in names:
        raise argparse.ArgumentTypeError(f"give corrected and any of {', '.join(arms())}, with commas between")
    return names


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", help="folders with pairs.csv, images and masks")
    parser.add_argument(
        "--prompt", type=_prompt, action="append", default=[], help="NAME=PROMPT for all images of a set"
    )
    parser.add_argument("--labelled", type=int, default=80, help="images to learn from (default: %(default)s)")
    parser.add_argument("--held-out", type=int, default=60, help="most images to judge by (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=250, help="of training (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--arms", type=_arms, default=["corrected", "released"], help=f"of {', '.join(arms())}")
    parser.add_argument("--out", type=Path, help="file of finished runs, a line of JSON each; picked up again")
    return parser.parse_args()


def main() -> None:
    """Train, judge, print."""
    options = _options()
    options.prompt = dict(options.prompt)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        if not options.data:
            write_dataset(Path(folder) / "phantoms", n=N_PHANTOMS, seed=0)
        report(list(runs(options, options.data or [Path(folder) / "phantoms"])), options)


if __name__ == "__main__":
    main()
