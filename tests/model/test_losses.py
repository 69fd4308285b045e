"""Loss values against closed forms."""

import math

import numpy as np
import pytest
import torch

from model.losses import bce_loss, dice_loss, row_dice_loss, soft_contrastive_loss


def logit(p):
    return math.log(p / (1 - p))


def test_dice_is_computed_per_image_not_per_row_or_batch():
    targets = torch.zeros(2, 1, 2, 4)
    targets[0, 0, 0] = 1  # four pixels, all in one row
    targets[1, 0, 1, 0] = 1  # one pixel
    logits = torch.full((2, 1, 2, 4), logit(0.25))
    expected = np.mean([1 - 2 * 0.25 * n / (8 * 0.25 + n) for n in (4, 1)])
    assert dice_loss(logits, targets).item() == pytest.approx(expected, abs=1e-5)


def test_dice_of_a_perfect_answer_is_nothing_and_of_the_opposite_everything():
    targets = (torch.arange(32).view(1, 1, 4, 8) % 3 == 0).float()
    assert dice_loss(60 * (targets - 0.5), targets).item() == pytest.approx(0, abs=1e-5)
    assert dice_loss(60 * (0.5 - targets), targets).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.filterwarnings("ignore")  # of monai's imports
def test_dice_by_rows_is_what_monai_makes_of_maps_without_a_channel():
    monai_losses = pytest.importorskip("monai.losses")
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(3, 1, 7, 5, generator=generator)
    targets = (torch.rand(3, 1, 7, 5, generator=generator) < 0.3).float()
    targets[0, :, 2:4] = 0  # rows without foreground
    as_released = monai_losses.DiceLoss(include_background=False, sigmoid=True)(logits[:, 0], targets[:, 0])
    assert row_dice_loss(logits, targets).item() == pytest.approx(as_released.item(), abs=1e-6)
    assert row_dice_loss(logits[:, 0], targets[:, 0]).item() == pytest.approx(as_released.item(), abs=1e-6)
    per_image = monai_losses.DiceLoss(sigmoid=True)(logits, targets)
    assert dice_loss(logits, targets).item() == pytest.approx(per_image.item(), abs=1e-6)


def test_dice_by_rows_blames_a_perfect_answer_for_empty_rows_and_ignores_the_first():
    targets = torch.zeros(1, 1, 5, 4)
    targets[..., 2, :] = 1
    perfect = row_dice_loss(16 * (targets - 0.5), targets).item()
    assert perfect == pytest.approx(3 / 4, abs=0.01)  # three of the four rows that count are empty
    otherwise = 16 * (targets - 0.5)
    otherwise[..., 0, :] = 9
    assert row_dice_loss(otherwise, targets).item() == perfect


def test_cross_entropy_in_nats():
    targets = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 2, 2)
    expected = (-math.log(0.2) - 3 * math.log(0.8)) / 4
    assert bce_loss(torch.full((1, 1, 2, 2), logit(0.2)), targets).item() == pytest.approx(expected, rel=1e-5)


def slow_contrast(patches, text, temperature):
    images = np.stack([np.mean([p / np.linalg.norm(p) for p in image], axis=0) for image in patches])
    n = len(images)
    targets = np.zeros((n, n))
    for i in range(n):
        row = np.array([text[i] @ text[j] / temperature for j in range(n)])
        row = row / np.linalg.norm(row)
        targets[i] = np.exp(row) / np.exp(row).sum()
    total = 0.0
    for i in range(n):
        to_text = np.array([images[i] @ text[j] / temperature for j in range(n)])
        to_image = np.array([images[j] @ text[i] / temperature for j in range(n)])
        total -= targets[i] @ (to_text - np.log(np.exp(to_text).sum())) / n
        total -= targets[:, i] @ (to_image - np.log(np.exp(to_image).sum())) / n
    return total / 2


def test_contrast_equals_the_slow_reference():
    rng = np.random.default_rng(0)
    patches, text = rng.normal(size=(4, 9, 5)), rng.normal(size=(4, 5))
    value = soft_contrastive_loss(torch.from_numpy(patches), torch.from_numpy(text), 0.2).item()
    assert value == pytest.approx(slow_contrast(patches, text, 0.2), rel=1e-6)


def test_contrast_of_one_image_is_zero_and_targets_carry_no_gradient():
    patches = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0))
    text = torch.randn(1, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = soft_contrastive_loss(patches, text, 0.2)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert text.grad is not None and text.grad.abs().max() < 1e-6


def test_contrast_of_equal_texts_is_the_entropy_of_not_knowing():
    patches = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0))
    text = torch.ones(6, 3)
    to_text = math.log(6)  # all texts score alike, whatever the image
    images = torch.nn.functional.normalize(patches, dim=-1).mean(1)
    scores = images.sum(-1) / 0.2
    to_image = (scores.logsumexp(0) - scores.mean()).item()
    assert soft_contrastive_loss(patches, text, 0.2).item() == pytest.approx((to_text + to_image) / 2, rel=1e-5)


def test_the_temperature_cancels_in_the_targets_of_the_contrast():
    """With images that all score alike the loss sees nothing but the targets."""
    text = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    shares = []
    for temperature in (0.05, 0.2, 3.0):
        likeness = text @ text.T / temperature
        shares.append(torch.nn.functional.normalize(likeness, dim=-1).softmax(-1))
    assert torch.allclose(shares[0], shares[2], atol=1e-6)
    patches = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1))
    losses = [soft_contrastive_loss(patches, text, t).item() for t in (0.2, 0.4)]
    mean = torch.nn.functional.normalize(patches, dim=-1).mean(1)
    expected = []
    for temperature in (0.2, 0.4):
        logits = mean @ text.T / temperature
        cross = -(shares[1] * logits.log_softmax(-1)).sum() - (shares[1].T * logits.T.log_softmax(-1)).sum()
        expected.append(cross.item() / 10)
    assert losses == pytest.approx(expected, rel=1e-5)


def test_the_targets_of_the_contrast_are_taken_as_given():
    """The gradient is that of a cross-entropy to constant targets, with nothing through the targets themselves."""
    patches = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    text = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    likeness = torch.nn.functional.normalize(text @ text.T, dim=-1).softmax(-1)

    def slow(values):
        logits = torch.nn.functional.normalize(patches, dim=-1).mean(1) @ values.T / 0.2
        cross = (likeness * logits.log_softmax(-1)).sum() + (likeness.T * logits.T.log_softmax(-1)).sum()
        return -cross / 8

    leaf = text.clone().requires_grad_()
    (expected,) = torch.autograd.grad(slow(leaf), leaf)
    (gradient,) = torch.autograd.grad(soft_contrastive_loss(patches, leaf, 0.2), leaf)
    assert torch.allclose(gradient, expected, rtol=1e-9, atol=1e-12)
