"""What scenes are drawn with: coordinates, smooth noise, blobs, light. Lengths are shares of the side of the frame.

A field is (S, S) float64 over the square frame, rows downwards from 0 to 1 and columns to the right.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]


@lru_cache(maxsize=8)
def grid(size: int) -> tuple[Field, Field]:
    """Row and column of every pixel centre, in [0, 1]."""
    centres = (np.arange(size) + 0.5) / size
    return np.repeat(centres[:, None], size, 1), np.repeat(centres[None, :], size, 0)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


@lru_cache(maxsize=8)
def _squared_frequency(size: int) -> tuple[Field, Field]:
    """Squares of the frequencies along rows and columns of a real transform, cycles per frame side."""
    along_rows, along_columns = np.fft.fftfreq(size, 1 / size), np.fft.rfftfreq(size, 1 / size)
    return np.asarray(along_rows[:, None] ** 2, np.float64), np.asarray(along_columns[None, :] ** 2, np.float64)


def noise(rng: np.random.Generator, size: int, length: float, across: float | None = None) -> Field:
    """Gaussian noise smoothed over `length` (along rows; `across` along columns), mean 0 and variance 1."""
    down, right = _squared_frequency(size)
    across = length if across is None else across
    transfer = np.exp(-2 * np.pi**2 * (down * length**2 + right * across**2))
    transfer[0, 0] = 0
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * transfer, s=(size, size))
    return field / (field.std() + 1e-12)


def blob(
    rng: np.random.Generator,
    size: int,
    centre: tuple[float, float],
    radius: float,
    elongation: float = 1.0,
    angle: float = 0.0,
    roughness: float = 0.2,
) -> Field:
    """How far inside a rounded outline each pixel lies: 1 in the centre, 0 on the outline, negative outside.

    elongation is the ratio of the axes, angle (radians) turns the long one from the columns towards the rows;
    roughness bounds the Fourier modes 2 to 5 of the outline, 0 for a plain ellipse.
    """
    rows, columns = grid(size)
    down, right = rows - centre[0], columns - centre[1]
    along = (np.cos(angle) * right + np.sin(angle) * down) / np.sqrt(elongation)
    aside = (np.cos(angle) * down - np.sin(angle) * right) * np.sqrt(elongation)
    reach = radius
    if roughness > 0:
        turn = np.arctan2(aside, along)
        modes = np.arange(2, 6)
        sizes, phases = rng.uniform(0, roughness, 4) / modes, rng.uniform(0, 2 * np.pi, 4)
        reach = radius * (1 + sum(a * np.cos(m * turn + p) for m, a, p in zip(modes, sizes, phases, strict=True)))
    return 1 - np.hypot(along, aside) / reach


def step(field: Field, width: float) -> Field:
    """From 0 to 1 where the field rises through 0, over about `width`."""
    return 1 / (1 + np.exp(-np.clip(field / width, -40, 40)))


def dome(inward: Field) -> Field:
    """The height of a hemisphere over a blob: 1 in its centre, 0 on and beyond its outline."""
    return np.sqrt(np.clip(1 - (1 - inward) ** 2, 0, None)) * (inward > 0)


def curves(rng: np.random.Generator, size: int, length: float, width: float) -> Field:
    """Winding lines, 1 on a line and fading to 0 over `width`: where smooth noise of that length passes 0."""
    field = noise(rng, size, length)
    slope = np.hypot(*np.gradient(field)) * size + 1e-6
    return np.exp(-((field / slope / width) ** 2))


def mix(below: Field, above: Field | float, share: Field) -> Field:
    """`above` laid over `below`, as opaque as `share`; a share (S, S) serves all channels of (S, S, 3)."""
    if below.ndim == 3:
        share = share[..., None]
    return below * (1 - share) + above * share


def camera(rng: np.random.Generator, image: Field, blur: float = 0.012, grain: float = 0.03) -> NDArray[np.uint8]:
    """What a recorder makes of (S, S, 3) in [0, 1]: some blur, tone and noise, then 8 bits."""
    length = rng.uniform(0, blur)
    if length > 0.25 * blur:
        image = _blurred(image, length)
    image = np.clip(image, 0, 1) ** log_uniform(rng, 0.75, 1.33)
    spots = rng.standard_normal(image.shape[:2])[..., None] * rng.uniform(0, grain)
    return np.asarray(np.clip(255 * (image + spots), 0, 255), np.uint8)


def _blurred(image: Field, length: float) -> Field:
    size = len(image)
    down, right = _squared_frequency(size)
    transfer = np.exp(-2 * np.pi**2 * (down + right) * length**2)[..., None]
    # Mirrored borders would cost four times as much; the little that wraps round is hidden in the blur.
    return np.fft.irfft2(np.fft.rfft2(image, axes=(0, 1)) * transfer, s=(size, size), axes=(0, 1))
