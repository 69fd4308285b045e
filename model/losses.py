"""The terms MedCLIPSeg is trained with (Koleilat et al. 2026): Dice, cross-entropy, soft contrast."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

SMOOTHING = 1e-5


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over images of 1 − soft Dice. logits and targets (B, 1, h, w), targets in [0, 1]."""
    return _one_minus_dice(logits.flatten(1).sigmoid(), targets.flatten(1)).mean()


def row_dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over images and pixel rows, the first row left out, of 1 − soft Dice of that row.

    logits and targets (B, 1, h, w) or (B, h, w). This is what the released code computes: it hands (B, h, w) to a loss
    that takes the second axis for channels and its first entry for the background. A row without foreground counts as
    an error unless it is all but black.
    """
    return _one_minus_dice(logits[..., 1:, :].sigmoid(), targets[..., 1:, :]).mean()


def _one_minus_dice(p: Tensor, targets: Tensor) -> Tensor:
    """Over the last axis."""
    overlap, total = (p * targets).sum(-1), p.sum(-1) + targets.sum(-1)
    return 1 - (2 * overlap + SMOOTHING) / (total + SMOOTHING)


def bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, nats, mean over all pixels. logits and targets (B, 1, h, w)."""
    return F.binary_cross_entropy_with_logits(logits, targets)


def soft_contrastive_loss(patches: Tensor, text: Tensor, temperature: float) -> Tensor:
    """Draws each image to the texts like its own. patches (B, N, E), text (B, E), neither normalised."""
    return contrast(mean_patch(patches), text, temperature)


def mean_patch(patches: Tensor) -> Tensor:
    """(B, N, E) → (B, E): what stands for an image in the contrast, the mean of its unit patch features."""
    return F.normalize(patches, dim=-1).mean(1)


def contrast(images: Tensor, text: Tensor, temperature: float) -> Tensor:
    """The contrast of a whole batch, from `mean_patch` features (B, E) and text features (B, E), not normalised.

    The targets come from the likeness of the texts among themselves and carry no gradient; their rows have unit
    length before the softmax, so the temperature cancels in them. The two directions weigh half each.
    """
    logits = images @ text.T / temperature
    fixed = text.detach()
    targets = F.normalize(fixed @ fixed.T / temperature, dim=-1).softmax(-1)
    return (_soft_cross_entropy(logits, targets) + _soft_cross_entropy(logits.T, targets.T)) / 2


def _soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return -(targets * logits.log_softmax(-1)).sum(-1).mean()
