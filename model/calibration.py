"""Probabilities that mean what they say: one temperature, fitted on held-out images.

Guo et al. 2017 (arXiv:1706.04599), section 4.2: logits are divided by a temperature T before the sigmoid. T > 1 makes a
network less sure, T < 1 surer; the mask of a single pass, p ≥ ½ in the model frame, is the same for every T.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from model.data import Example, load_pairs
from model.errors import BadInput, NoExamples

if TYPE_CHECKING:
    from model.segmenter import Segmenter

LOWEST, HIGHEST = 0.1, 10.0
"""Temperatures outside belong to a broken network, or to too few images; the fit stays between them."""

GRID = 17
"""Temperatures tried first, evenly spaced in log T, 1 among them: with several draws the loss may have two valleys."""

READING_TEMPERATURE = 16.0
"""Logits are read back from probabilities at this temperature, at which float32 resolves them up to ±200."""

POINTS_PER_IMAGE = 4096
CHUNK = 8

Logits = NDArray[np.floating]
Mask = NDArray[np.bool_]


def probability_at(logits: Logits, temperature: float) -> NDArray[np.floating]:
    """Mean over draws of σ(logits / temperature). logits: (N, …). Returns (…)."""
    return special.expit(logits / temperature).mean(0)


def fit_temperature(logits: Sequence[Logits], masks: Sequence[Mask]) -> float:
    """The temperature at which the masks are likeliest, between LOWEST and HIGHEST.

    logits: per image (N, …), N draws at temperature 1, as many for every image; masks: per image (…). Minimises the
    mean over images of the mean over pixels of −ln p of what the mask says, p being the mean over draws: the image is
    what was drawn from the hospital, and its pixels are not independent of each other, so each image counts once,
    whatever its size. The result is never worse than 1. Deterministic.

    Fit it on images the network was not trained on, with the number of draws it will answer with. Raises NoExamples
    for no image, and BadInput for shapes that do not match, logits that are not finite, or masks that show only
    foreground or only background, on which a temperature could only learn to be sure.
    """
    _check(logits, masks)
    margins = np.concatenate([_margins(image, mask) for image, mask in zip(logits, masks, strict=True)], axis=1)
    weights = np.concatenate([np.full(mask.size, 1 / mask.size / len(masks)) for mask in masks])

    def loss(log_temperature: float) -> float:
        # Capped where exp would overflow: a pixel costs at most 700 nats, far beyond any that decides.
        odds_against = np.exp(np.minimum(-margins * np.exp(-log_temperature), 700))
        return -float(weights @ np.log((1 / (1 + odds_against)).mean(0)))

    return float(np.clip(np.exp(_minimum(loss)), LOWEST, HIGHEST))


def calibrate(segmenter: Segmenter, examples: Sequence[Example], n_draws: int = 8, seed: int = 0) -> Segmenter:
    """The same segmenter with the temperature that suits the examples; the weights are shared and stay as they are.

    examples: held-out images, not those it was trained on, and best not those it is then evaluated on. Fitted at random
    pixels of each image in the model frame, where the network answers. A temperature the segmenter already has does not
    matter. Raises NoExamples, BadInput, and BadExample naming every file that cannot be used.
    """
    if not examples:
        raise NoExamples("there is nothing to calibrate on; label some held-out images first")
    rng = np.random.default_rng(seed)
    reader = segmenter.with_temperature(READING_TEMPERATURE)
    logits, masks = [], []
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        pairs = load_pairs(chunk, lambda image, mask: (image, mask))
        answers = reader.segment_many([image for image, _ in pairs], [e.prompt for e in chunk], n_draws, seed)
        for answer, (_, truth) in zip(answers, pairs, strict=True):
            mask = _at_model_pixels(truth, answer.draws.shape[1:])
            points = rng.permutation(mask.size)[:POINTS_PER_IMAGE]
            logits.append(_read(answer.draws.reshape(len(answer.draws), -1)[:, points]))
            masks.append(mask.ravel()[points])
    return segmenter.with_temperature(fit_temperature(logits, masks))


def _check(logits: Sequence[Logits], masks: Sequence[Mask]) -> None:
    if not len(logits):
        raise NoExamples("a temperature needs at least one held-out image")
    if len(logits) != len(masks):
        raise BadInput(f"{len(logits)} maps of logits came with {len(masks)} masks; give one mask per image")
    for k, (image, mask) in enumerate(zip(logits, masks, strict=True)):
        if mask.dtype != np.bool_ or image.shape[1:] != mask.shape or not image.size or len(image) != len(logits[0]):
            raise BadInput(
                f"logits {image.shape} and mask {mask.dtype} {mask.shape} of image {k} do not fit; give logits (N, …), "
                "with the same number of draws N for all images, and bool masks (…)"
            )
        if not np.isfinite(image).all():
            raise BadInput(f"logits of image {k} are not finite; check the weights of the network")
    seen = {bool(value) for mask in masks for value in (mask.min(), mask.max())}
    if len(seen) == 1:
        kind = "foreground" if seen.pop() else "background"
        raise BadInput(f"the masks are all {kind}; a temperature needs held-out images with both")


def _read(draws: NDArray[np.float32]) -> Logits:
    """Logits of probabilities given at READING_TEMPERATURE; those beyond ±220, where float32 ends, become ±220."""
    return READING_TEMPERATURE * special.logit(np.clip(draws.astype(np.float64), 1e-6, 1 - 1e-6))


def _margins(logits: Logits, mask: Mask) -> NDArray[np.floating]:
    """Logits (N, pixels) of what the mask says: positive where a draw is right."""
    return np.where(mask, logits, -logits).reshape(len(logits), -1)


def _minimum(loss: Callable[[float], float]) -> float:
    """Where the loss is least over log T: the best of a grid, then refined between its two neighbours."""
    grid = np.linspace(np.log(LOWEST), np.log(HIGHEST), GRID)
    losses = [loss(point) for point in grid]
    best = int(np.argmin(losses))
    low, high = grid[max(0, best - 1)], grid[min(GRID - 1, best + 1)]
    refined = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return float(refined.x) if refined.fun < losses[best] else float(grid[best])


def _at_model_pixels(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """What the mask (H, W) says where the centres of the model frame's pixels (h, w) lie."""
    rows, columns = ((np.arange(n) + 0.5) / n for n in shape)
    return mask[np.ix_((rows * mask.shape[0]).astype(int), (columns * mask.shape[1]).astype(int))]
