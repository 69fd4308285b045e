"""Synthetic, ultrasound-like phantoms with masks: something to segment where no real images are at hand.

Honest about what they are: Rayleigh speckle over a drawn map of echogenicity, log-compressed as in B-mode. They share
the look of an ultrasound image (speckle, attenuation with depth, layers, shadows), not its physics and not its
difficulty. A Dice on phantoms says that the loop works; it says nothing about a clinical image.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

SIZE_PX = 256
PROMPT = "a dark lesion in an ultrasound image"
DYNAMIC_RANGE_DB = 55.0
AREA_SHARE = (0.025, 0.17)
_ROWS, _COLUMNS = np.mgrid[0:SIZE_PX, 0:SIZE_PX].astype(np.float64)


@dataclass(frozen=True)
class _Patient:
    """What the frames of one patient have in common. Levels and contrasts in dB, lengths in pixels."""

    layers: tuple[tuple[float, float], ...]  # (depth of the upper border, level)
    waviness: tuple[float, float, float]  # amplitude, period, phase of the layer borders
    attenuation_db: float  # loss from the top to the bottom of the frame
    speckle_px: tuple[float, float]  # correlation length along depth, across the beam
    area_share: float
    elongation: float
    contrast_db: float
    edge_px: float
    shadow_db: float  # below the lesion: negative is a shadow, positive enhancement, 0 for no clear sign
    outline: tuple[tuple[float, float], ...]  # (amplitude, phase) of the Fourier modes 2, 3, ...


def phantom(seed: int, patient: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """One frame and its lesion. Frames with the same `patient` share appearance; by default each is its own patient.

    Returns image (256, 256) uint8 and mask (256, 256) bool; the lesion covers 2-20 % of the frame.
    """
    appearance = _patient(np.random.default_rng([1, seed if patient is None else patient]))
    rng = np.random.default_rng([2, seed])
    inside, depth = _lesion(appearance, rng)
    level = _tissue(appearance, rng) + _distractors(rng)
    # The lesion replaces what was drawn beneath it, so that no distractor shines through.
    level = (1 - depth) * level + depth * (_mean_level(appearance) - appearance.contrast_db)
    level += appearance.shadow_db * _below(inside)
    level -= appearance.attenuation_db * _ROWS / SIZE_PX
    decibels = level + 20 * np.log10(_speckle(appearance.speckle_px, rng) + 1e-6)
    return np.clip(255 * (1 + decibels / DYNAMIC_RANGE_DB), 0, 255).astype(np.uint8), inside


def _patient(rng: np.random.Generator) -> _Patient:
    depths = [-np.inf, *np.sort(rng.uniform(30, 230, size=rng.integers(1, 4)))]
    base = rng.uniform(-21, -11)
    return _Patient(
        layers=tuple((float(depth), float(base + rng.uniform(-5, 5))) for depth in depths),
        waviness=(rng.uniform(2, 10), rng.uniform(120, 400), rng.uniform(0, 2 * np.pi)),
        attenuation_db=rng.uniform(2, 14),
        speckle_px=(rng.uniform(0.7, 1.2), rng.uniform(1.3, 2.6)),
        area_share=float(np.exp(rng.uniform(*np.log(AREA_SHARE)))),
        elongation=rng.uniform(1.1, 2.0),
        contrast_db=rng.uniform(9, 18),
        edge_px=rng.uniform(0.8, 3.0),
        shadow_db=float(rng.choice([0.0, 0.0, -7.0, 4.0])),
        outline=tuple((rng.uniform(0, 0.4) / mode, rng.uniform(0, 2 * np.pi)) for mode in range(2, 6)),
    )


def _mean_level(appearance: _Patient) -> float:
    return float(np.mean([level for _, level in appearance.layers]))


def _lesion(appearance: _Patient, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The mask, and the same with a soft edge in [0, 1]. Small changes between frames of one patient."""
    radius = SIZE_PX * np.sqrt(appearance.area_share * rng.uniform(0.9, 1.1) / np.pi)
    reach = radius * np.sqrt(appearance.elongation) * 1.2
    row, column = rng.uniform(reach, SIZE_PX - reach, size=2)
    down, across = _ROWS - row, _COLUMNS - column
    # Lesions lie rather along the layers than across them.
    angle = np.arctan2(down, across) - rng.normal(0, 0.35)
    ellipse = 1 / np.hypot(
        np.cos(angle) / np.sqrt(appearance.elongation), np.sin(angle) * np.sqrt(appearance.elongation)
    )
    modes = enumerate(appearance.outline, start=2)
    bumps = 1 + sum(a * np.cos(mode * angle + phase + rng.normal(0, 0.3)) for mode, (a, phase) in modes)
    inward_px = radius * ellipse * bumps - np.hypot(down, across)
    return inward_px > 0, 1 / (1 + np.exp(-np.clip(inward_px / appearance.edge_px, -50, 50)))


def _tissue(appearance: _Patient, rng: np.random.Generator) -> np.ndarray:
    amplitude, period, phase = appearance.waviness
    depth = _ROWS + amplitude * np.sin(2 * np.pi * _COLUMNS / period + phase + rng.normal(0, 0.4))
    level = np.zeros((SIZE_PX, SIZE_PX))
    for border, layer in appearance.layers:
        level[depth > border] = layer
    return level + 2.0 * _smooth_noise((12.0, 25.0), rng).real


def _distractors(rng: np.random.Generator) -> np.ndarray:
    """Bright fascia, a faint dark band and small dark vessels: reasons not to call everything dark a lesion."""
    level = np.zeros((SIZE_PX, SIZE_PX))
    for gain, width in [(9, 2.0)] * rng.integers(1, 4) + [(-6, 6.0)] * rng.integers(0, 2):
        line = rng.uniform(15, 240) + rng.normal(0, 0.1) * _COLUMNS + 4 * np.sin(_COLUMNS / rng.uniform(20, 60))
        level += gain * np.exp(-(((_ROWS - line) / width) ** 2))
    for _ in range(rng.integers(0, 4)):
        (row, column), radius = rng.uniform(10, 246, size=2), rng.uniform(3, 8)
        level -= 14 * (np.hypot(_ROWS - row, (_COLUMNS - column) / 1.5) < radius)
    return level


def _below(inside: np.ndarray) -> np.ndarray:
    """1 below the lesion, fading out with depth, 0 elsewhere."""
    return np.where(inside, 0.0, np.maximum.accumulate(inside, axis=0) * np.exp(-_depth_since(inside) / 60))


def _depth_since(inside: np.ndarray) -> np.ndarray:
    last_row = np.maximum.accumulate(np.where(inside, _ROWS, 0), axis=0)
    return _ROWS - last_row


def _speckle(correlation_px: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Rayleigh amplitude with mean square 1: the envelope of a correlated complex Gaussian field."""
    return np.abs(_smooth_noise(correlation_px, rng)) / np.sqrt(2)


def _smooth_noise(correlation_px: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Complex Gaussian field (256, 256), real and imaginary part of unit variance, smoothed in the frequency domain."""
    frequency = np.fft.fftfreq(SIZE_PX)
    down, across = (np.exp(-2 * (np.pi * frequency * length) ** 2) for length in correlation_px)
    transfer = np.outer(down, across)
    noise = rng.normal(size=(2, SIZE_PX, SIZE_PX))
    return np.fft.ifft2(np.fft.fft2(noise[0] + 1j * noise[1]) * transfer) / np.sqrt(np.mean(transfer**2))


def _frames(seed: int) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Endless (id, group, image, mask): patients of two or three frames each. More frames only extend fewer."""
    rng = np.random.default_rng(seed)
    number = 0
    while True:
        patient = int(rng.integers(2**32))
        for frame in range(rng.integers(2, 4)):
            image, mask = phantom(int(rng.integers(2**32)), patient)
            yield f"p{number:04d}-{frame}", f"p{number:04d}", image, mask
        number += 1


def write_dataset(folder: Path, n: int, seed: int = 0) -> Path:
    """Write n phantoms as `images/*.png`, `masks/*.png` (0/255) and `pairs.csv`, in the layout of any labelled folder.

    Columns id, image, mask, group (the patient), prompt. The same seed writes the same bytes. Returns the folder.
    """
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows = [("id", "image", "mask", "group", "prompt")]
    for name, group, image, mask in islice(_frames(seed), n):
        paths = (f"images/{name}.png", f"masks/{name}.png")
        Image.fromarray(image).save(folder / paths[0])
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / paths[1])
        rows.append((name, *paths, group, PROMPT))
    # Last, so that a folder with a pairs.csv is complete.
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder


def main(arguments: list[str] | None = None) -> None:
    """`python -m demo.phantoms FOLDER --n 100 --seed 0`."""
    parser = argparse.ArgumentParser(prog="python -m demo.phantoms", description="Write synthetic phantoms with masks.")
    parser.add_argument("folder", type=Path, help="where to write images/, masks/ and pairs.csv")
    parser.add_argument("--n", type=int, default=100, help="number of frames (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed writes the same bytes (default 0)")
    options = parser.parse_args(arguments)
    folder = write_dataset(options.folder, options.n, options.seed)
    print(f"{options.n} phantoms in {folder}")


if __name__ == "__main__":
    main()
