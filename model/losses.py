"""The three terms MedCLIPSeg is trained with (Koleilat et al. 2026): Dice per image, cross-entropy, soft contrast."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

SMOOTHING = 1e-5


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over images of 1 − soft Dice. logits and targets (B, 1, h, w), targets in [0, 1].

    Per image, as intended; the released code takes image rows for channels and so computes it per row.
    """
    p = logits.sigmoid()
    overlap = (p * targets).sum((1, 2, 3))
    total = p.sum((1, 2, 3)) + targets.sum((1, 2, 3))
    return (1 - (2 * overlap + SMOOTHING) / (total + SMOOTHING)).mean()


def bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, nats, mean over all pixels. logits and targets (B, 1, h, w)."""
    return F.binary_cross_entropy_with_logits(logits, targets)


def soft_contrastive_loss(patches: Tensor, text: Tensor, temperature: float) -> Tensor:
    """Draws each image to the texts like its own. patches (B, N, E), text (B, E), neither normalised.

    An image stands as the mean of its unit patch features. The targets come from the likeness of the texts among
    themselves and carry no gradient. The two directions weigh half each.
    """
    images = F.normalize(patches, dim=-1).mean(1)
    logits = images @ text.T / temperature
    fixed = text.detach()
    targets = F.normalize(fixed @ fixed.T / temperature, dim=-1).softmax(-1)
    return (_soft_cross_entropy(logits, targets) + _soft_cross_entropy(logits.T, targets.T)) / 2


def _soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return -(targets * logits.log_softmax(-1)).sum(-1).mean()
