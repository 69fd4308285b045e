"""Scenes of many small bodies (microscopy) and of one spot on skin (dermoscopy)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pretraining.fields import Field, blob, camera, curves, grid, log_uniform, mix, noise, step
from pretraining.scenes import Scene, seen


def microscopy(rng: np.random.Generator, size: int) -> Scene:
    """Nuclei, fluorescent on black or stained on pale, some touching; often a second population beside them."""
    fluorescent = rng.uniform() < 0.6
    background = _glow(rng, size) if fluorescent else _slide(rng, size)
    colour = _dye(rng) if fluorescent else _stain(rng)
    image, things = background, []
    for kind in ["cell nuclei", "debris"] if rng.uniform() < 0.5 else ["cell nuclei"]:
        share, mask = _population(rng, size, small=kind == "debris")
        texture = 1 + rng.uniform(0, 0.25) * noise(rng, size, 0.02)
        paint = colour * texture[..., None] * (rng.uniform(0.3, 0.7) if kind == "debris" else 1)
        image = mix(image, np.clip(paint, 0, 1), share * (1 if fluorescent else rng.uniform(0.6, 1)))
        things.append((kind, mask))
    return Scene(camera(rng, image), "microscopy", seen(things, np.ones((size, size), bool)))


def _population(rng: np.random.Generator, size: int, small: bool) -> tuple[Field, NDArray[np.bool_]]:
    """Bodies of one sort scattered over the frame: opacity (S, S) in [0, 1] and mask."""
    radius = log_uniform(rng, 0.012, 0.025) if small else log_uniform(rng, 0.018, 0.09)
    crowd = log_uniform(rng, 0.02, 0.15) if small else log_uniform(rng, 0.03, 0.6)
    count = int(np.clip(crowd / (np.pi * radius**2), 1, 150))
    centres = rng.uniform(-0.02, 1.02, (count, 2))
    radii = radius * np.exp(rng.normal(0, 0.2, count))
    stretch, angles = np.exp(np.abs(rng.normal(0, 0.25, count))), rng.uniform(0, np.pi, count)
    strength = rng.uniform(rng.uniform(0.25, 1), 1, count)
    share, mask = np.zeros((size, size)), np.zeros((size, size), bool)
    for centre, reach, elongation, angle, opacity in zip(centres, radii, stretch, angles, strength, strict=True):
        window, inward = _small_ellipse(size, centre, reach, elongation, angle)
        share[window] = np.maximum(share[window], opacity * step(inward * reach, 0.006))
        mask[window] |= inward > 0
    return share, mask


def _small_ellipse(
    size: int, centre: NDArray[np.float64], reach: float, elongation: float, angle: float
) -> tuple[tuple[slice, slice], Field]:
    """What `blob` answers for an ellipse, but only in the window that holds it."""
    half = reach * np.sqrt(elongation) + 0.03
    low = np.clip(((centre - half) * size).astype(int), 0, size - 1)
    high = np.clip(((centre + half) * size).astype(int) + 1, 1, size)
    window = slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))
    rows, columns = (axis[window] for axis in grid(size))
    down, right = rows - centre[0], columns - centre[1]
    along = (np.cos(angle) * right + np.sin(angle) * down) / np.sqrt(elongation)
    aside = (np.cos(angle) * down - np.sin(angle) * right) * np.sqrt(elongation)
    return window, 1 - np.hypot(along, aside) / reach


def _glow(rng: np.random.Generator, size: int) -> Field:
    field = rng.uniform(0.01, 0.15) * (1 + 0.3 * noise(rng, size, 0.2))
    return np.repeat(np.clip(field, 0, 1)[..., None], 3, 2)


def _dye(rng: np.random.Generator) -> NDArray[np.float64]:
    if rng.uniform() < 0.7:
        return np.ones(3) * rng.uniform(0.2, 1)
    return rng.uniform(0.1, 1, 3)


def _slide(rng: np.random.Generator, size: int) -> Field:
    paper = np.array([rng.uniform(0.75, 1), rng.uniform(0.6, 0.95), rng.uniform(0.75, 1)])
    matrix = np.array([0.85, rng.uniform(0.4, 0.7), rng.uniform(0.6, 0.85)])
    base = np.broadcast_to(paper, (size, size, 3))
    return mix(base, matrix, step(noise(rng, size, rng.uniform(0.03, 0.15)), 0.5) * rng.uniform(0, 0.9))


def _stain(rng: np.random.Generator) -> NDArray[np.float64]:
    return np.array([rng.uniform(0.2, 0.55), rng.uniform(0.1, 0.4), rng.uniform(0.35, 0.65)])


def dermoscopy(rng: np.random.Generator, size: int) -> Scene:
    """One pigmented spot with an uneven border on skin, under hairs."""
    rows, columns = grid(size)
    red = rng.uniform(0.6, 0.95)
    skin = np.array([red, red * rng.uniform(0.65, 0.85), red * rng.uniform(0.5, 0.8)])
    image = np.broadcast_to(skin, (size, size, 3)) * (1 + 0.04 * noise(rng, size, 0.1)[..., None])
    radius = log_uniform(rng, 0.08, 0.4)
    row, column = rng.uniform(0.3, 0.7, 2)
    inward = blob(rng, size, (row, column), radius, log_uniform(rng, 1, 1.8), rng.uniform(0, np.pi), 0.6)
    inward = inward + rng.uniform(0, 0.15) * noise(rng, size, rng.uniform(0.03, 0.1))
    pigment = skin * np.array([rng.uniform(0.3, 0.85), rng.uniform(0.25, 0.75), rng.uniform(0.2, 0.75)])
    network = 1 + rng.uniform(0, 0.3) * noise(rng, size, rng.uniform(0.01, 0.06))
    image = mix(image, pigment * network[..., None], step(inward * radius, rng.uniform(0.005, 0.05)))
    if rng.uniform() < 0.4:
        image = mix(image, 0.1, curves(rng, size, rng.uniform(0.1, 0.3), 0.005) * rng.uniform(0.3, 0.9))
    if rng.uniform() < 0.3:
        edge = rng.uniform(0.5, 0.68) - np.hypot(rows - 0.5, columns - 0.5)
        image = image * step(edge, 0.03)[..., None]
    return Scene(camera(rng, image), "dermoscopy", seen([("lesion", inward > 0)], np.ones((size, size), bool)))
