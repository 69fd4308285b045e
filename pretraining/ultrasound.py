"""Ultrasound-like scenes: a fan of speckle, walls that shine where the beam meets them square, shadows behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretraining.fields import Field, blob, camera, dome, grid, log_uniform, noise, step
from pretraining.scenes import Scene, seen


@dataclass(frozen=True)
class _Fan:
    """Where the beam runs: `inside` 0..1, depth below the probe, the beam's number, its direction (down, right)."""

    inside: Field
    depth: Field
    beam: Field
    down: Field
    right: Field


@dataclass(frozen=True)
class _Body:
    """A rounded thing: how far inside it a pixel lies (see `blob`), levels in dB against its surroundings."""

    kind: str
    inward: Field
    radius: float
    level: float
    wall: float
    wall_width: float
    shadow: float


def ultrasound(rng: np.random.Generator, size: int) -> Scene:
    """A large walled head, or cysts and masses, among bright streaks; often only part of an outline can be seen."""
    fan = _fan(rng, size)
    bodies = _obstetric(rng, size) if rng.uniform() < 0.6 else _lesions(rng, size)
    level = rng.uniform(1, 6) * noise(rng, size, 0.2) + rng.uniform(0, 3) * noise(rng, size, 0.03, 0.12)
    level += _streaks(rng, size)
    haze = rng.uniform(0, 9) * noise(rng, size, 0.3)
    for body in bodies:
        soft = step(body.inward * body.radius, rng.uniform(0.005, 0.03))
        level = level * (1 - rng.uniform(0.6, 1) * soft) + (body.level + haze) * soft
        level += _wall(rng, body, fan)
        level += body.shadow * _behind(body.inward > 0, fan)
    level -= fan.depth * rng.uniform(0, 30) + rng.uniform(0, 8) * np.abs(noise(rng, size, 0.4))
    brightness = _compressed(rng, level, fan.inside) * fan.inside
    tone = np.ones(3) if rng.uniform() < 0.7 else rng.uniform(0.8, 1, 3)
    image = camera(rng, brightness[..., None] * tone, blur=0.01, grain=0.01)
    things = [(body.kind, body.inward > 0) for body in bodies]
    return Scene(image, "ultrasound", seen(things, fan.inside > 0.5))


def _fan(rng: np.random.Generator, size: int) -> _Fan:
    rows, columns = grid(size)
    if rng.uniform() < 0.2:
        flat = np.zeros((size, size))
        return _Fan(np.ones((size, size)), rows, columns, flat + 1, flat)
    apex_row, apex_column = rng.uniform(-0.35, 0.02), rng.normal(0.5, 0.04)
    half_angle = np.radians(rng.uniform(25, 50))
    near = rng.uniform(0.02, 0.12) - min(apex_row, 0)
    far = rng.uniform(0.85, 1.15) - apex_row
    distance = np.hypot(rows - apex_row, columns - apex_column) + 1e-6
    angle = np.arctan2(columns - apex_column, rows - apex_row)
    sides = np.minimum(half_angle - np.abs(angle), np.minimum(distance - near, far - distance))
    down, right = (rows - apex_row) / distance, (columns - apex_column) / distance
    return _Fan(step(sides, 0.006), np.clip(distance - near, 0, None), angle / half_angle / 2 + 0.5, down, right)


def _obstetric(rng: np.random.Generator, size: int) -> list[_Body]:
    head = _body(rng, size, "fetal head", radius=(0.12, 0.32), elongation=1.6, level=(-16, 1), wall=(8, 32))
    around = []
    if rng.uniform() < 0.4:
        around.append(
            _body(rng, size, "pubic symphysis", radius=(0.05, 0.1), elongation=2.6, level=(-12, 4), wall=(3, 14))
        )
    if rng.uniform() < 0.3:
        around.append(_body(rng, size, "bladder", radius=(0.04, 0.14), elongation=2.2, level=(-30, -15), wall=(0, 4)))
    return [*around, head] if rng.uniform() < 0.5 else [head, *around]


def _lesions(rng: np.random.Generator, size: int) -> list[_Body]:
    bodies = []
    for _ in range(rng.integers(1, 5)):
        if rng.uniform() < 0.5:
            bodies.append(_body(rng, size, "cyst", radius=(0.04, 0.22), elongation=1.8, level=(-30, -14), wall=(0, 6)))
        else:
            sign = rng.choice([-1, 1])
            levels = (5, 14) if sign > 0 else (-14, -5)
            bodies.append(_body(rng, size, "mass", radius=(0.04, 0.22), elongation=2.0, level=levels, wall=(0, 4)))
    return bodies


def _body(
    rng: np.random.Generator,
    size: int,
    kind: str,
    radius: tuple[float, float],
    elongation: float,
    level: tuple[float, float],
    wall: tuple[float, float],
) -> _Body:
    reach = log_uniform(rng, *radius)
    if kind == "fetal head":
        row, column = rng.normal(0.48, 0.14), rng.normal(0.5, 0.14)
    else:
        row, column = rng.uniform(0.2, 0.85), rng.uniform(0.15, 0.85)
    rough = rng.uniform(0.1, 0.5) if kind == "mass" else rng.uniform(0, 0.12)
    inward = blob(rng, size, (row, column), reach, log_uniform(rng, 1, elongation), rng.uniform(0, np.pi), rough)
    shadow = rng.uniform(2, 8) if kind == "cyst" else -rng.uniform(0, 14)
    return _Body(kind, inward, reach, rng.uniform(*level), rng.uniform(*wall), rng.uniform(0.006, 0.025), shadow)


def _wall(rng: np.random.Generator, body: _Body, fan: _Fan) -> Field:
    """Echo of the outline in dB: strong where the beam meets it square, with gaps."""
    near = np.exp(-((body.inward * body.radius / body.wall_width) ** 2))
    slope_down, slope_right = np.gradient(body.inward)
    steepness = np.hypot(slope_down, slope_right) + 1e-9
    square = np.abs(slope_down * fan.down + slope_right * fan.right) / steepness
    patchy = step(noise(rng, len(near), 0.12) + rng.uniform(-0.2, 1.2), 0.3)
    return np.asarray(body.wall * near * square ** rng.uniform(0.3, 6) * patchy)


def _behind(mask: NDArray[np.bool_], fan: _Fan) -> Field:
    """1 farther from the probe than the thing, in the beams that pass it, and 0 elsewhere."""
    if not mask.any():
        return np.zeros(mask.shape)
    beams, depths = fan.beam[mask], fan.depth[mask]
    n_bins = 48
    bins = np.clip((fan.beam * n_bins).astype(int), 0, n_bins - 1)
    deepest = np.full(n_bins, np.inf)
    for position in np.unique(np.clip((beams * n_bins).astype(int), 0, n_bins - 1)):
        deepest[position] = depths[bins[mask] == position].max()
    return step(fan.depth - np.where(np.isinf(deepest), 99.0, deepest)[bins], 0.02)


def _streaks(rng: np.random.Generator, size: int) -> Field:
    """Bright reflectors, mostly across the beam, and now and then a bright patch of tissue; dB."""
    level = np.zeros((size, size))
    for _ in range(rng.integers(1, 8)):
        row, column = rng.uniform(0, 1, 2)
        inward = blob(
            rng, size, (row, column), rng.uniform(0.02, 0.08), rng.uniform(2, 9), rng.normal(0, 0.5), roughness=0
        )
        level += rng.uniform(4, 22) * dome(inward)
    for _ in range(rng.integers(0, 4)):
        row, column = rng.uniform(0, 1, 2)
        inward = blob(rng, size, (row, column), rng.uniform(0.1, 0.3), rng.uniform(1, 3), rng.uniform(0, np.pi), 0.5)
        fibres = 1 + rng.uniform(0, 0.4) * noise(rng, size, 0.02, 0.06)
        level += rng.uniform(-14, 24) * step(inward, rng.uniform(0.05, 0.4)) * fibres
    return level


def _compressed(rng: np.random.Generator, level: Field, inside: Field) -> Field:
    """Levels in dB times speckle, log-compressed to brightness in [0, 1]."""
    size = len(level)
    axial, lateral = rng.uniform(0.001, 0.006), rng.uniform(0.003, 0.014)
    real, imaginary = noise(rng, size, axial, lateral), noise(rng, size, axial, lateral)
    speckle = 10 * np.log10((real**2 + imaginary**2) / 2 + 1e-3)
    dynamic_range = rng.uniform(28, 60)
    echo = level + rng.uniform(0.05, 0.75) * speckle
    # Gain is set so that the louder echoes come out mid-grey to white, as whoever holds the probe would.
    loud = np.quantile(echo[inside > 0.5], 0.97)
    top = log_uniform(rng, 0.4, 1.05)
    return np.asarray(np.clip(top + (echo - loud) / dynamic_range, 0, 1) ** log_uniform(rng, 0.8, 2))
