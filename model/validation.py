"""How good the weights of a step are on examples that nothing is learnt from."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from model import batches, distributed
from model.batches import TrainingSet
from model.config import TrainConfig
from model.gradient import autocast
from model.metrics import dice
from model.segmenter import Segmenter

TIME_SHARE = 0.15
"""Of a run, at most about this much goes to validation."""
COST = 0.5
"""Of one image looked at, in those learnt from: a third of the arithmetic, or half over frozen towers."""
MIN_STEPS_BETWEEN = 10


def interval(n_training: int, n_validation: int, config: TrainConfig) -> int:
    """Steps from one validation to the next: an epoch, or more where the time share or a tiny epoch asks for it.

    Counted in images, not in seconds, so that the same run always validates after the same steps.
    """
    affordable = math.ceil(COST * n_validation * (1 - TIME_SHARE) / TIME_SHARE / config.batch_size)
    return max(batches.steps_per_epoch(n_training, config), affordable, MIN_STEPS_BETWEEN)


@torch.inference_mode()
def mean_dice(segmenter: Segmenter, data: TrainingSet, config: TrainConfig, step: int, images_per_pass: int) -> float:
    """Mean over images of Dice at probability 0.5, in the model frame; 1 where mask and answer are both empty.

    The mean path, or with validation_draws the mean of so many draws. Processes share the images; all get the mean.
    """
    segmenter.network.eval()
    own = np.arange(len(data))[distributed.rank() :: distributed.world_size()]
    chunks = [own[at : at + images_per_pass] for at in range(0, len(own), images_per_pass)]
    values = [
        dice(answer, data.masks[i])
        for chunk in chunks
        for answer, i in zip(_foreground(segmenter, data, chunk, config, step), chunk, strict=True)
    ]
    return float(distributed.gathered(np.array(values), len(data), segmenter.device).mean())


def _foreground(
    segmenter: Segmenter, data: TrainingSet, chosen: NDArray[np.intp], config: TrainConfig, step: int
) -> NDArray[np.bool_]:
    """Masks (n, S, S) of the chosen examples."""
    device, n_draws = segmenter.device, max(1, config.validation_draws)
    noise = None
    if config.validation_draws:
        seed = batches.torch_seed(config.seed, batches.VALIDATION, step, int(chosen[0]))
        n_rows = n_draws * len(chosen)
        noise = batches.noise(seed, slice(0, n_rows), n_rows, device)
    tokens = segmenter.tokenise([data.prompts[i] for i in chosen])
    images = segmenter.normalise(batches.pixels(data.images[chosen], device))
    with autocast(config.precision, device):
        logits = segmenter.network(images, tokens, noise, n_draws).logits
    probability = logits.float().sigmoid().view(n_draws, len(chosen), *logits.shape[1:]).mean(0)
    mask: NDArray[np.bool_] = (probability >= 0.5).cpu().numpy()
    return mask
