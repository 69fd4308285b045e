"""Learning curves with a known truth: of the family that is fitted, and of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from evidence.forecast import Curve

Shape = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # labels in multiples of the first → Dice


def power(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    top, gap = rng.uniform(0.6, 0.95), rng.uniform(0.05, 0.5)
    return top - gap * x ** -rng.uniform(0.2, 2)


def exponential(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    top, gap = rng.uniform(0.6, 0.95), rng.uniform(0.05, 0.5)
    return top - gap * np.exp(-(x - 1) / rng.uniform(1, 8))


def logistic(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Starts slowly, then rises: in the logarithm of the labels."""
    top, gap, middle, steepness = rng.uniform(0.6, 0.95), rng.uniform(0.05, 0.5), rng.uniform(1, 6), rng.uniform(1, 2.5)

    risen = 1 / (1 + (x / middle) ** -steepness)
    return top - gap * (1 - risen) / (1 - risen[0])


def logarithm(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Has no ceiling below 0.97."""
    return np.clip(rng.uniform(0.3, 0.7) + rng.uniform(0.01, 0.08) * np.log2(x), 0, 0.97)


def plateau(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.full(len(x), rng.uniform(0.4, 0.95))


SHAPES: dict[str, Shape] = {shape.__name__: shape for shape in (power, exponential, logistic, logarithm, plateau)}


def drawn(shape: Shape, n: int, *, points: int, seed: int) -> Iterator[tuple[Curve, np.ndarray, float]]:
    """n curves of one shape as measured, with the truth at each point and the noise, of 0.005 to 0.03 Dice."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        labels = 10 + rng.choice([5, 10, 20]) * np.arange(points)
        truth = shape(labels / labels[0], rng)
        noise = float(np.exp(rng.uniform(np.log(0.005), np.log(0.03))))
        measured = np.clip(truth + rng.normal(0, noise, points), 0, 1)
        yield Curve(labels.tolist(), measured.tolist()), truth, noise
