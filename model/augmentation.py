"""Random but reproducible variations of a training batch: geometry for image and mask, light for the image alone."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

MAX_ROTATION_DEGREES = 30.0
MAX_SHIFT_SHARE = 0.1
SCALE = (0.8, 1.25)
MAX_BRIGHTNESS = 0.1
CONTRAST = (0.8, 1.25)
GAMMA = (0.7, 1.4)


def augment(images: Tensor, masks: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """images (B, 3, S, S) in [0, 1] and masks (B, 1, S, S) in {0, 1} → the same shapes and ranges, varied per image."""
    images, masks = _warp(images, masks, rng)
    return _relight(images, rng), masks


def _warp(images: Tensor, masks: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Flip, rotate, scale and shift; what comes in from outside is the reflected image."""
    theta = torch.from_numpy(np.stack([_affine(rng) for _ in images])).to(images)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    both = F.grid_sample(torch.cat([images, masks], 1), grid, padding_mode="reflection", align_corners=False)
    return both[:, :3], (both[:, 3:] >= 0.5).to(masks)


def _affine(rng: np.random.Generator) -> np.ndarray:
    """One random (2, 3) matrix from output to input coordinates, both in [-1, 1]."""
    angle = math.radians(rng.uniform(-MAX_ROTATION_DEGREES, MAX_ROTATION_DEGREES))
    scale = _log_uniform(rng, SCALE, 1)[0]
    flip_x, flip_y = rng.choice([-1.0, 1.0], 2)
    shift = rng.uniform(-2 * MAX_SHIFT_SHARE, 2 * MAX_SHIFT_SHARE, 2)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.column_stack([turn * [flip_x, flip_y] / scale, shift])


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
