"""Scenes of the inside of a body: slices with several organs (MRI, CT) and overlaid shadows (X-ray)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretraining.fields import Field, blob, camera, curves, dome, grid, log_uniform, mix, noise, step
from pretraining.scenes import Scene, Thing, seen


@dataclass(frozen=True)
class _Organ:
    """Where an organ lies and how it looks: the same in every slice, so that its name can be learnt."""

    name: str
    place: tuple[float, float]
    radius: float
    elongation: float
    angle: float
    level: float
    rim: float


_ORGANS = (
    _Organ("liver", (0.4, 0.27), 0.2, 1.5, 2.6, 0.1, 0.0),
    _Organ("spleen", (0.42, 0.8), 0.1, 1.7, 1.3, 0.25, 0.0),
    _Organ("left kidney", (0.62, 0.7), 0.075, 1.5, 1.2, 0.4, -0.25),
    _Organ("right kidney", (0.62, 0.3), 0.075, 1.5, 1.9, 0.4, -0.25),
    _Organ("aorta", (0.6, 0.52), 0.045, 1.0, 0.0, 0.55, 0.0),
    _Organ("spine", (0.75, 0.5), 0.09, 1.2, 0.0, 0.7, 0.3),
    _Organ("ventricle", (0.45, 0.5), 0.09, 1.8, 1.57, -0.4, 0.0),
    _Organ("hippocampus", (0.55, 0.45), 0.1, 2.0, 0.2, -0.15, 0.3),
    _Organ("tumour", (0.5, 0.5), 0.09, 1.2, 0.0, 0.3, -0.2),
    _Organ("prostate", (0.6, 0.5), 0.11, 1.2, 0.0, -0.1, 0.2),
)


def section(rng: np.random.Generator, size: int) -> Scene:
    """A slice: folded tissue of a few grey levels and two to five organs near their places, under a bias field."""
    tissue = _folded_tissue(rng, size)
    inside: Field = np.ones((size, size))
    if rng.uniform() < 0.5:
        body = blob(rng, size, (0.5, 0.5), rng.uniform(0.42, 0.5), rng.uniform(1, 1.3), rng.normal(0, 0.2), 0.1)
        inside = step(body, 0.02)
        tissue = tissue + rng.uniform(-0.3, 0.5) * np.exp(-((body / rng.uniform(0.03, 0.1)) ** 2))
    chosen = rng.choice(len(_ORGANS), rng.integers(2, 6), replace=False)
    invert = rng.choice([-1, 1], p=[0.25, 0.75])
    things = []
    for organ in (_ORGANS[i] for i in sorted(chosen)):
        inward, radius = _placed(rng, size, organ)
        level = invert * (organ.level + rng.normal(0, 0.08)) + 0.05 * noise(rng, size, 0.03) * rng.uniform(0, 1)
        soft = step(inward * radius, rng.uniform(0.004, 0.02))
        tissue = mix(tissue, level, soft * rng.uniform(0.7, 1))
        tissue = tissue + invert * organ.rim * np.exp(-((inward * radius / rng.uniform(0.008, 0.02)) ** 2))
        things.append((organ.name, inward > 0))
    grey = (0.45 + 0.5 * tissue) * (1 + rng.uniform(0, 0.2) * noise(rng, size, 0.4)) * inside
    image = np.repeat(np.clip(grey * log_uniform(rng, 0.7, 1.3), 0, 1)[..., None], 3, 2)
    modality = str(rng.choice(["MRI", "CT"]))
    return Scene(camera(rng, image), modality, seen(things, inside > 0.5))


def _folded_tissue(rng: np.random.Generator, size: int) -> Field:
    """Bands of two or three grey levels, wound like the cortex, and finer structure."""
    length = log_uniform(rng, 0.03, 0.15)
    field = noise(rng, size, length) + rng.uniform(0, 0.5) * noise(rng, size, length / 3)
    low, high = np.sort(rng.uniform(-0.6, 0.9, 2))
    levels = low + (high - low) * step(field, rng.uniform(0.05, 0.4))
    third = rng.uniform(-0.8, 0.8)
    levels = mix(levels, third, step(field - rng.uniform(0.6, 1.6), 0.1))
    return levels + rng.uniform(0, 0.08) * noise(rng, size, 0.012)


def _placed(rng: np.random.Generator, size: int, organ: _Organ) -> tuple[Field, float]:
    row, column = np.array(organ.place) + rng.normal(0, 0.06, 2)
    radius = organ.radius * log_uniform(rng, 0.65, 1.4)
    angle = organ.angle + rng.normal(0, 0.25)
    return blob(rng, size, (row, column), radius, organ.elongation, angle, rng.uniform(0.1, 0.5)), radius


def radiograph(rng: np.random.Generator, size: int) -> Scene:
    """A chest: two dark lungs under ribs, a bright heart, perhaps nodules; all shadows add up."""
    rows, columns = grid(size)
    middle = rng.normal(0.5, 0.03)
    spread = rng.uniform(0.17, 0.24)
    thickness = 0.75 + 0.08 * noise(rng, size, 0.25)
    lungs = np.full((size, size), -1.0)
    for side in (-1, 1):
        centre = (rng.normal(0.48, 0.03), middle + side * spread)
        tilt = np.pi / 2 + side * rng.uniform(0, 0.25)
        lungs = np.maximum(lungs, blob(rng, size, centre, rng.uniform(0.16, 0.23), rng.uniform(1.5, 2.2), tilt, 0.2))
    heart = blob(
        rng, size, (0.62, middle + rng.normal(0.06, 0.02)), rng.uniform(0.12, 0.19), 1.2, rng.uniform(0, 1), 0.2
    )
    thickness = thickness - rng.uniform(0.3, 0.5) * step(lungs, 0.05)
    thickness = mix(thickness, rng.uniform(0.75, 0.95), step(heart, 0.05) * rng.uniform(0.6, 1))
    curve = rows * rng.uniform(8, 13) + rng.uniform(2, 5) * np.abs(columns - middle) + rng.uniform()
    thickness = thickness + rng.uniform(0.03, 0.12) * np.exp(-((((curve % 1) - 0.5) / 0.18) ** 2))
    thickness = thickness + rng.uniform(0.05, 0.2) * np.exp(-(((columns - middle) / 0.05) ** 2))
    things = [("lungs", lungs > 0), ("heart", heart > 0)]
    for _ in range(rng.integers(0, 3)):
        row, column = rng.uniform(0.25, 0.75, 2)
        nodule = blob(rng, size, (row, column), rng.uniform(0.035, 0.1), rng.uniform(1, 1.4), 0, 0.2)
        thickness = thickness + rng.uniform(0.12, 0.3) * dome(nodule)
        things.append(("nodule", nodule > 0))
    image = np.repeat(np.clip(thickness, 0, 1)[..., None], 3, 2) ** log_uniform(rng, 0.8, 2)
    return Scene(camera(rng, image), "chest X-ray", _overlaid(things, size))


def _overlaid(things: list[tuple[str, NDArray[np.bool_]]], size: int) -> tuple[Thing, ...]:
    """In a shadow picture nothing hides anything but the heart, which the lungs leave free."""
    everywhere = np.ones((size, size), bool)
    solid = seen(things[:2], everywhere)
    return (*solid, *(thing for nodule in things[2:] for thing in seen([nodule], everywhere)))


_COLOURS = {
    "red": (0.85, 0.15, 0.15),
    "green": (0.2, 0.7, 0.25),
    "blue": (0.2, 0.3, 0.85),
    "yellow": (0.9, 0.8, 0.2),
    "purple": (0.55, 0.2, 0.65),
    "brown": (0.5, 0.3, 0.15),
    "white": (0.95, 0.95, 0.95),
    "black": (0.06, 0.06, 0.06),
    "grey": (0.5, 0.5, 0.5),
}


def abstract(rng: np.random.Generator, size: int) -> Scene:
    """Shapes of any colour and texture on any ground, some told from it by texture alone; named by their colour."""
    ground = rng.uniform(0.1, 0.9, 3) if rng.uniform() < 0.6 else np.repeat(rng.uniform(0.1, 0.9), 3)
    image = ground * (1 + rng.uniform(0, 0.4) * noise(rng, size, log_uniform(rng, 0.01, 0.3))[..., None])
    if rng.uniform() < 0.5:
        image = mix(image, rng.uniform(0, 1), curves(rng, size, rng.uniform(0.05, 0.2), rng.uniform(0.004, 0.02)))
    things = []
    for _ in range(rng.integers(1, 6)):
        name = str(rng.choice(list(_COLOURS)))
        radius, (row, column) = log_uniform(rng, 0.05, 0.25), rng.uniform(0.1, 0.9, 2)
        rough = rng.uniform(0, 0.5)
        inward = blob(rng, size, (row, column), radius, log_uniform(rng, 1, 2.5), rng.uniform(0, np.pi), rough)
        paint = np.clip(np.array(_COLOURS[name]) + rng.normal(0, 0.06, 3), 0, 1)
        texture = 1 + rng.uniform(0, 0.25) * noise(rng, size, log_uniform(rng, 0.01, 0.1))
        light = 1 + rng.uniform(-0.5, 0.3) * (1 - dome(inward))
        soft = step(inward * radius, rng.uniform(0.003, 0.03)) * rng.uniform(0.6, 1)
        image = mix(image, paint * (texture * light)[..., None], soft)
        things.append((f"{name} shape", inward > 0))
    everywhere = np.ones((size, size), bool)
    return Scene(camera(rng, image), "synthetic", seen(things, everywhere))
