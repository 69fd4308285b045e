"""How fast a pool is scored with a ViT-B/16 at 224 px, against the released schedule, in one run on one machine.

Released schedule: for every image 31 whole passes one after the other, the prompt padded to its full length, fp32; 30
of them are used. Ours: the same 30 draws with the prompt trimmed and what chance does not touch done once; and the
adaptive schedule, a few draws for all and up to 30 near the cut. Weights are random: they do not change the arithmetic.

On a GPU also: images per second at 1, 5 and 30 draws in bf16, against the chip's measured peak, and a training step.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import strategies
from model import ModelConfig, Segmenter, Source, recipes
from model.adaptive import rank_pool
from model.backbones import RANDOM
from model.losses import bce_loss, dice_loss, row_dice_loss

PROMPT = "one medium polyp with a round shape and a smooth surface, located in the upper left of the image"
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ",", *sorted({*PROMPT.replace(",", "").split()}))
N_RELEASED_PASSES = 31


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--images", type=int, default=20, help="size of the adaptively scored pool (default: 20)")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions of each timing; the median counts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        source = Source(RANDOM, vocabulary(Path(folder)))
        ours = Segmenter.create(ModelConfig(backbone="unimedclip"), device=options.device, source=source)
        released = as_released(ours)
        compare(ours, released, options.images, options.repeats)
        if ours.device.type == "cuda":
            throughput(ours)
            training_step(ours)
        else:
            print("\nNOT MEASURED HERE: images per second, share of the peak and training step on a GPU (none found)")


def as_released(ours: Segmenter) -> Segmenter:
    """The same weights under the released recipe."""
    network = copy.copy(ours.network)  # shares every module; only the configuration differs
    network.config = dataclasses.replace(ours.config, **padded(recipes.get("released").model_config()))
    return Segmenter(network.config, network, ours.device)


def vocabulary(folder: Path) -> Path:
    """A BERT vocabulary with the words of the prompt, as the hub keeps one."""
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "tokenizer_class": "BertTokenizer"}')
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return folder


def compare(ours: Segmenter, released: Segmenter, n_images: int, repeats: int) -> None:
    """Uncertainty of an image by both schedules, and one pre-annotation."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (288, 384, 3), dtype=np.uint8) for _ in range(n_images)]
    print(f"device {ours.device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, segmenter in (("released", released), ("ours", ours)):
        with FlopCounterMode(display=False) as counted, torch.inference_mode():
            one_pass(segmenter, images[0])
        print(f"{name} pass: {counted.get_total_flops() / 1e9:.1f} GFLOP")
    # Side by side: each repetition times every schedule, so that a busy moment of the machine meets them all.
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):
        timed(seconds, "released schedule, 31 passes, fp32", ours, lambda: released_schedule(released, images[0]))
        for precision in ("fp32", "bf16"):
            ours.precision = precision
            timed(seconds, f"30 draws, {precision}", ours, lambda: ours.segment(images[0], PROMPT, n_draws=30))
            timed(seconds, f"one pre-annotation, {precision}", ours, lambda: ours.segment(images[0], PROMPT, n_draws=0))
    ours.precision = "fp32"
    passes = timed(seconds, "adaptive draws, fp32", ours, lambda: adaptive_schedule(ours, images), n_images)
    theirs = statistics.median(seconds["released schedule, 31 passes, fp32"])
    print("\n| schedule | seconds per image, median | released / this |\n|---|---|---|")
    for name, values in seconds.items():
        print(f"| {name} | {statistics.median(values):.3f} | {theirs / statistics.median(values):.1f} |")
    print(f"\nadaptive: {passes / n_images:.1f} draws an image, of a pool of {n_images}, query of {n_images // 10}")


def timed(seconds: dict[str, list[float]], name: str, on: Segmenter, work: Callable[[], Any], n: int = 1) -> Any:
    """Add to `seconds` how long the work takes, per one of n; returns what it returns."""
    synchronise(on)
    began = time.perf_counter()
    answer = work()
    synchronise(on)
    seconds.setdefault(name, []).append((time.perf_counter() - began) / n)
    return answer


def synchronise(segmenter: Segmenter) -> None:
    """Wait for what a GPU still has to do."""
    if segmenter.device.type == "cuda":
        torch.cuda.synchronize(segmenter.device)


@torch.inference_mode()
def released_schedule(segmenter: Segmenter, image: np.ndarray) -> None:
    """One image, 31 times through the whole network, the first time for nothing."""
    for _ in range(N_RELEASED_PASSES):
        one_pass(segmenter, image)


def one_pass(segmenter: Segmenter, image: np.ndarray) -> np.ndarray:
    """One draw; the recipe of the segmenter decides whether the prompt is padded."""
    return next(segmenter.draw([(image, [PROMPT])], 1, seed=0))


def adaptive_schedule(segmenter: Segmenter, images: Sequence[np.ndarray]) -> int:
    """Rank the images as a pool of which a tenth is asked for; returns the passes it took."""
    score = strategies.get("entropy").score
    return rank_pool(segmenter, lambda at: (images[at], [PROMPT]), len(images), len(images) // 10, score).passes


def throughput(segmenter: Segmenter) -> None:
    """Images per second in bf16 by number of draws, against the chip's measured peak, and the memory it takes."""
    peak = measured_peak(segmenter.device)
    segmenter.precision, segmenter.rows_per_pass = "bf16", 512
    images = [np.random.default_rng(1).integers(0, 256, (224, 224, 3), dtype=np.uint8)] * 512
    print(f"\nmeasured bf16 peak {peak / 1e12:.0f} TFLOP/s")
    print("| draws | images/s | share of the peak | GiB |\n|---|---|---|---|")
    for n_draws in (1, 5, 30):
        pool = [(image, [PROMPT]) for image in images[: 512 if n_draws < 30 else 128]]
        with FlopCounterMode(display=False) as counted:
            list(segmenter.draw(pool[:16], n_draws))
        torch.cuda.reset_peak_memory_stats(segmenter.device)
        seconds: dict[str, list[float]] = {}
        for _ in range(3):
            timed(seconds, "draws", segmenter, lambda p=pool, n=n_draws: list(segmenter.draw(p, n)))
        rate = len(pool) / statistics.median(seconds["draws"])
        share = rate * counted.get_total_flops() / 16 / peak
        memory = torch.cuda.max_memory_allocated(segmenter.device) / 2**30
        print(f"| {n_draws} | {rate:.0f} | {share:.2f} | {memory:.1f} |")


def measured_peak(device: torch.device, side: int = 8192) -> float:
    """FLOP per second of the best of ten large bf16 products."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        a @ b
        torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def training_step(segmenter: Segmenter) -> None:
    """A step of batch 24 by either recipe: fp32 over padded prompts, and bf16 over trimmed ones."""
    print("\n| training step, batch 24 | seconds | ratio |\n|---|---|---|")
    base = 0.0
    for name in ("released", "corrected"):
        config = recipes.get(name).model_config(backbone="unimedclip")
        network = copy.copy(segmenter.network)
        network.config = (
            segmenter.config if name == "corrected" else dataclasses.replace(segmenter.config, **padded(config))
        )
        of_recipe = Segmenter(network.config, network, segmenter.device)
        seconds: dict[str, list[float]] = {}
        for _ in range(5):
            timed(seconds, name, of_recipe, lambda s=of_recipe, n=name: one_training_step(s, bf16=n == "corrected"))
        took = statistics.median(seconds[name][1:])
        base = base or took
        print(f"| {name} | {took:.3f} | {base / took:.1f} |")


def one_training_step(segmenter: Segmenter, bf16: bool) -> None:
    """Forward, loss and backward of 24 images."""
    network = segmenter.network.train()
    images = torch.randn(24, 3, 224, 224, device=segmenter.device)
    masks = torch.rand(24, 1, 224, 224, device=segmenter.device).round()
    tokens = segmenter.tokenise([PROMPT] * 24)
    with torch.autocast(segmenter.device.type, torch.bfloat16, enabled=bf16):
        logits = network(
            images, tokens, lambda rows, width: torch.randn(24, rows, width, device=segmenter.device)
        ).logits
    loss = (dice_loss if bf16 else lambda a, b: row_dice_loss(a[:, 0], b[:, 0]))(logits.float()[:, None], masks)
    (loss + bce_loss(logits.float()[:, None], masks)).backward()
    network.zero_grad(set_to_none=True)
    network.eval()


def padded(config: ModelConfig) -> dict[str, str]:
    """What of a recipe's model decides how much there is to compute."""
    return {"padding": config.padding, "channels": config.channels, "statistics": config.statistics}


if __name__ == "__main__":
    main()
