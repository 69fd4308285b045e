"""Variations keep image and mask together, keep the ranges, and follow the generator."""

import numpy as np
import torch

from model.augmentation import augment
from tests.model.conftest import disc


def batch():
    pairs = [disc(seed, 64, 64) for seed in range(8)]
    images = torch.stack([torch.from_numpy(image).float().expand(3, 64, 64) / 255 for image, _ in pairs])
    return images, torch.stack([torch.from_numpy(mask)[None].float() for _, mask in pairs])


def test_the_mask_moves_with_its_image():
    images, masks = batch()
    moved_images, moved_masks = augment(images, masks, np.random.default_rng(0))
    assert not torch.equal(masks, moved_masks)
    for image, mask in zip(moved_images, moved_masks, strict=True):
        inside, outside = image[:1][mask > 0.5], image[:1][mask < 0.5]
        assert inside.mean() - outside.mean() > 3 * outside.std()


def test_ranges_shapes_and_inputs_are_kept():
    images, masks = batch()
    before = images.clone(), masks.clone()
    moved_images, moved_masks = augment(images, masks, np.random.default_rng(0))
    assert moved_images.shape == images.shape and moved_masks.shape == masks.shape
    assert moved_images.min() >= 0 and moved_images.max() <= 1
    assert set(moved_masks.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(images, before[0]) and torch.equal(masks, before[1])


def test_the_same_generator_gives_the_same_variation():
    images, masks = batch()
    one, same, other = (augment(images, masks, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
