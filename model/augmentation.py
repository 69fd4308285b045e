"""Random but reproducible variations of a training batch: geometry for image and mask, light for the image alone."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

MAX_ROTATION_DEGREES = 30.0
MAX_SHIFT_SHARE = 0.1
SCALE = (0.8, 1.25)
MAX_BRIGHTNESS = 0.1
CONTRAST = (0.8, 1.25)
GAMMA = (0.7, 1.4)

RELEASED_ROTATION_DEGREES = 20

_SIDES = (
    re.compile(r"\b(left|right)", re.IGNORECASE),
    re.compile(r"\b(top|bottom|upper|lower|above|below)", re.IGNORECASE),
)


def augment(
    images: Tensor, masks: Tensor, rng: np.random.Generator, may_flip: NDArray[np.bool_] | None = None
) -> tuple[Tensor, Tensor]:
    """images (B, 3, S, S) in [0, 1] and masks (B, 1, S, S) in {0, 1} → the same shapes and ranges, varied per image.

    Flip, rotate, scale, shift, gamma, contrast, brightness. may_flip (B, 2): whether an image may be flipped left to
    right, and upside down; None: all may.
    """
    images, masks = _warp(images, masks, rng, may_flip)
    return _relight(images, rng), masks


def rotate(images: Tensor, masks: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The only variation of the released code: one image in two turns by whole degrees, at most 20, same shapes out.

    Nearest neighbour, black where the image does not reach.
    """
    turned = rng.random(len(images)) < 0.5
    angles = rng.integers(-RELEASED_ROTATION_DEGREES, RELEASED_ROTATION_DEGREES, len(images), endpoint=True)
    theta = np.stack([np.column_stack([_turn(math.radians(a)), [0, 0]]) for a in angles * turned])
    grid = F.affine_grid(torch.from_numpy(theta).to(images), list(images.shape), align_corners=False)
    both = F.grid_sample(torch.cat([images, masks], 1), grid, mode="nearest", align_corners=False)
    return both[:, :3], both[:, 3:]


def may_flip(prompts: Sequence[str]) -> NDArray[np.bool_]:
    """For each prompt, whether a flip left to right, and one upside down, leaves it true: (n, 2).

    "A polyp in the upper left" names both sides, so its image keeps both.
    """
    return np.array([[not side.search(prompt) for side in _SIDES] for prompt in prompts]).reshape(-1, 2)


def _warp(
    images: Tensor, masks: Tensor, rng: np.random.Generator, flips: NDArray[np.bool_] | None
) -> tuple[Tensor, Tensor]:
    """Flip, rotate, scale and shift; what comes in from outside is the reflected image."""
    allowed = np.ones((len(images), 2), bool) if flips is None else flips
    theta = torch.from_numpy(np.stack([_affine(rng, both) for both in allowed])).to(images)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    both = F.grid_sample(torch.cat([images, masks], 1), grid, padding_mode="reflection", align_corners=False)
    return both[:, :3], (both[:, 3:] >= 0.5).to(masks)


def _affine(rng: np.random.Generator, flips: NDArray[np.bool_]) -> np.ndarray:
    """One random (2, 3) matrix from output to input coordinates, both in [-1, 1]. flips (2,): which are allowed."""
    angle = math.radians(rng.uniform(-MAX_ROTATION_DEGREES, MAX_ROTATION_DEGREES))
    scale = _log_uniform(rng, SCALE, 1)[0]
    # Drawn in any case, so that what is allowed for one image does not move the chance of the next.
    signs = np.where(flips, rng.choice([-1.0, 1.0], 2), 1.0)
    shift = rng.uniform(-2 * MAX_SHIFT_SHARE, 2 * MAX_SHIFT_SHARE, 2)
    return np.column_stack([_turn(angle) * signs / scale, shift])


def _turn(radians: float) -> np.ndarray:
    return np.array([[math.cos(radians), -math.sin(radians)], [math.sin(radians), math.cos(radians)]])


def _relight(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Gamma, contrast about the image's mean, brightness."""
    gamma = _per_image(_log_uniform(rng, GAMMA, len(images)), images)
    contrast = _per_image(_log_uniform(rng, CONTRAST, len(images)), images)
    brightness = _per_image(rng.uniform(-MAX_BRIGHTNESS, MAX_BRIGHTNESS, len(images)), images)
    images = images.clamp(0, 1) ** gamma
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean + brightness).clamp(0, 1)


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float], n: int) -> np.ndarray:
    """n factors for which doubling and halving are equally likely."""
    return np.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1]), n))


def _per_image(values: np.ndarray, images: Tensor) -> Tensor:
    return torch.from_numpy(values).to(images).view(-1, 1, 1, 1)
