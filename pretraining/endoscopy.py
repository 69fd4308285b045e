"""Endoscopy-like scenes: a lamp beside the lens, moist reddish tissue with folds and bumps, a lumen, a black rim."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pretraining.fields import Field, blob, camera, curves, dome, grid, log_uniform, mix, noise, step
from pretraining.scenes import Scene, seen


def endoscopy(rng: np.random.Generator, size: int) -> Scene:
    """Bumps (polyps) of nearly the colour of the tissue around them, told by shading, rim, tint and texture."""
    lens = _lens(rng, size)
    polyps = [_polyp(rng, size) for _ in range(rng.choice([1, 2, 3], p=[0.75, 0.18, 0.07]))]
    distance, lumen_radius = _lumen(rng, size)
    height, shade = _folds(rng, size, distance)
    height = height + 0.02 * noise(rng, size, 0.2) + rng.uniform(0, 0.0015) * noise(rng, size, 0.04)
    albedo = _tissue(rng, size) * shade[..., None]
    dark = step(lumen_radius - distance, rng.uniform(0.02, 0.12)) * rng.uniform(0.6, 1)
    dark = np.maximum(dark, np.exp(-distance / rng.uniform(0.05, 0.6)) * rng.uniform(0, 1))
    for inward, radius in polyps:
        soft = step(inward * radius, rng.uniform(0.004, 0.015))
        # A bump stands on whatever is beneath it, and hides the lumen.
        height = height * (1 - 0.7 * soft) + radius * rng.uniform(0.35, 1.1) * dome(inward)
        albedo = mix(albedo, _tint(rng, albedo, size), soft * rng.uniform(0.3, 0.9))
        rim = np.exp(-((inward * radius / rng.uniform(0.01, 0.03)) ** 2)) * (inward < 0)
        albedo = albedo * (1 - rng.uniform(0, 0.4) * rim[..., None])
        dark = dark * (1 - soft * rng.uniform(0.5, 1))
    image = _lit(rng, albedo, height, 1 - dark)
    visible = lens > 0.5
    image = _exposed(rng, image, visible) * lens[..., None] + rng.uniform(0, 0.08) * (1 - lens[..., None])
    things = [("lumen", distance < lumen_radius), *(("polyp", inward > 0) for inward, _ in polyps)]
    modality = str(rng.choice(["colonoscopy", "endoscopy"]))
    return Scene(camera(rng, image, grain=0.012), modality, seen(things, visible))


def _lens(rng: np.random.Generator, size: int) -> Field:
    """1 where the picture is: all of the frame, a disc, or a square with cut corners; 0 in the black around it."""
    rows, columns = grid(size)
    down, right = np.abs(rows - rng.normal(0.5, 0.015)), np.abs(columns - rng.normal(0.5, 0.015))
    form = rng.choice(["full", "disc", "corners"], p=[0.25, 0.2, 0.55])
    if form == "full":
        return np.ones((size, size))
    if form == "disc":
        return step(rng.uniform(0.44, 0.6) - np.hypot(down, right), 0.004)
    sides = np.minimum(rng.uniform(0.42, 0.5) - down, rng.uniform(0.4, 0.5) - right)
    return step(np.minimum(sides, rng.uniform(0.65, 0.88) - down - right), 0.004)


def _polyp(rng: np.random.Generator, size: int) -> tuple[Field, float]:
    radius = log_uniform(rng, 0.055, 0.34)
    row, column = rng.uniform(0.08, 0.92, 2)
    elongation, roughness = log_uniform(rng, 1, 1.9), rng.uniform(0, 0.5)
    inward = blob(rng, size, (row, column), radius, elongation, rng.uniform(0, np.pi), roughness)
    if rng.uniform() < 0.25:
        # A second lobe.
        row, column = np.array([row, column]) + rng.normal(0, 0.6 * radius, 2)
        inward = np.maximum(inward, blob(rng, size, (row, column), radius * rng.uniform(0.5, 1), 1.2, 0, roughness))
    return inward, radius


def _lumen(rng: np.random.Generator, size: int) -> tuple[Field, float]:
    """Distance from the lumen's centre, which may lie outside the frame, and its radius."""
    rows, columns = grid(size)
    row, column = rng.uniform(-0.3, 1.3, 2)
    stretch = log_uniform(rng, 0.6, 1.6)
    return np.hypot((rows - row) * stretch, (columns - column) / stretch), rng.uniform(0.04, 0.35)


def _folds(rng: np.random.Generator, size: int, distance: Field) -> tuple[Field, Field]:
    """Ridges round the lumen, broken and wavy: their height, and how each darkens what lies behind its edge."""
    phase = np.log(distance + 0.1) * rng.uniform(0.5, 2.2) + rng.uniform(0.05, 0.35) * noise(rng, size, 0.25)
    across = (phase + rng.uniform()) % 1
    present = step(noise(rng, size, 0.25) + rng.uniform(-0.5, 1), 0.3)
    ridge = np.exp(-(((across - 0.5) / rng.uniform(0.06, 0.2)) ** 2))
    # Brightness climbs towards the edge of a fold and drops behind it.
    climbing = np.minimum(across, (1 - across) / rng.uniform(0.04, 0.3))
    shade = 1 - rng.uniform(0, 0.6) * present * (1 - np.clip(climbing, 0, 1))
    return rng.uniform(0, 0.06) * ridge * present, shade


def _tissue(rng: np.random.Generator, size: int) -> Field:
    """Albedo (S, S, 3): pink, red, orange or yellow, blotchy, with fine darker vessels."""
    red = rng.uniform(0.6, 0.95)
    green = red * rng.uniform(0.3, 0.85)
    base = np.array([red, green, green * rng.uniform(0.35, 1.0)])
    blotches = noise(rng, size, rng.uniform(0.08, 0.3))[..., None] * rng.normal(0, 0.035, 3)
    vessels = curves(rng, size, rng.uniform(0.06, 0.15), 0.005) * max(0, rng.uniform(-0.2, 0.25))
    return base * (1 + blotches) * (1 - vessels[..., None] * [0.5, 1, 1])


def _tint(rng: np.random.Generator, albedo: Field, size: int) -> Field:
    """The colour of a bump: that of its surroundings, mostly redder, or a little paler or darker, with its texture."""
    texture = 1 + rng.uniform(0, 0.1) * noise(rng, size, log_uniform(rng, 0.012, 0.05))
    redder = np.array([1.1, rng.uniform(0.6, 1), rng.uniform(0.6, 1.05)]) if rng.uniform() < 0.6 else np.ones(3)
    tint = albedo.mean((0, 1)) * redder * rng.normal(1, 0.08, 3) * log_uniform(rng, 0.85, 1.35)
    return np.asarray(tint * texture[..., None])


def _lit(rng: np.random.Generator, albedo: Field, height: Field, open_to_light: Field) -> Field:
    """Albedo under one lamp near the lens: Lambert's cosine, fall with distance, and gloss where it mirrors."""
    size = len(height)
    rows, columns = grid(size)
    slope_down, slope_right = (g * size for g in np.gradient(height))
    row, column = rng.normal(0.5, 0.2, 2)
    down, right, up = row - rows, column - columns, rng.uniform(0.35, 1.0) - height
    length = np.sqrt(down**2 + right**2 + up**2)
    steep = np.sqrt(1 + slope_down**2 + slope_right**2)
    cosine = (up - down * slope_down - right * slope_right) / (length * steep)
    diffuse = np.clip(cosine, 0, None) / (0.3 + length) ** rng.uniform(0.5, 2) + rng.uniform(0.05, 0.3)
    # Halfway between lamp and lens, for a lens far above the frame.
    halfway = (up / length + 1 - (down * slope_down + right * slope_right) / length) / steep
    halfway /= np.sqrt(2 + 2 * up / length)
    wet = step(noise(rng, size, rng.uniform(0.008, 0.03)) - rng.uniform(0.8, 2.8), 0.15)
    gloss = np.clip(halfway, 0, 1) ** log_uniform(rng, 15, 150) * wet * rng.uniform(0.2, 1.4)
    return albedo * (diffuse * open_to_light)[..., None] + (gloss * open_to_light)[..., None]


def _exposed(rng: np.random.Generator, image: Field, visible: NDArray[np.bool_]) -> Field:
    """The image with its brighter parts brought to a chosen level."""
    level = np.quantile(image[visible].max(-1), 0.9)
    return image * (rng.uniform(0.45, 1.05) / max(float(level), 1e-3))
