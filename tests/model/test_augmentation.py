"""Variations keep image and mask together, keep the ranges, and follow the generator."""

import numpy as np
import pytest
import torch
from PIL import Image

from model.augmentation import augment, may_flip, rotate
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


@pytest.mark.parametrize(
    ("prompt", "left_right", "up_down"),
    [
        ("a polyp in a colonoscopy image", True, True),
        ("one small polyp, located in bottom of the image", True, False),
        ("the Left lung", False, True),
        ("a nodule, upper right.", False, False),
        ("a bright copyright mark; a stopwatch, unlefted", True, True),
        ("leftmost tumour above the kidney", False, False),
    ],
)
def test_a_prompt_that_names_a_side_forbids_the_flip_that_would_belie_it(prompt, left_right, up_down):
    assert may_flip([prompt]).tolist() == [[left_right, up_down]]


def test_an_image_that_may_not_be_flipped_keeps_its_sides_and_its_neighbours_their_chance():
    images = torch.zeros(40, 3, 32, 32)
    images[:, 0, :, :16] = 1  # red on the left
    images[:, 1, :16] = 1  # green above
    masks = torch.zeros(40, 1, 32, 32)
    free = augment(images, masks, np.random.default_rng(0))[0]
    odd = np.arange(40) % 2 == 1
    some = augment(images, masks, np.random.default_rng(0), np.stack([odd, odd], 1))[0]
    assert _redder_left(some[~odd]).all() and _greener_above(some[~odd]).all()
    assert torch.equal(some[odd], free[odd])
    assert 8 < _redder_left(free).sum() < 32 and 8 < _greener_above(free).sum() < 32


def _redder_left(images):
    return images[:, 0, :, :16].mean((1, 2)) > images[:, 0, :, 16:].mean((1, 2))


def _greener_above(images):
    return images[:, 1, :16].mean((1, 2)) > images[:, 1, 16:].mean((1, 2))


def test_rotation_is_that_of_pillow_by_whole_degrees_for_one_image_in_two():
    images, masks = batch()
    images, masks = images.repeat(8, 1, 1, 1), masks.repeat(8, 1, 1, 1)
    turned, turned_masks = rotate(images, masks, np.random.default_rng(0))
    angles = []
    for image, mask, after, mask_after in zip(images, masks, turned, turned_masks, strict=True):
        grey = Image.fromarray((image[0] * 255).round().byte().numpy())
        differences = {}
        for angle in range(-20, 21):
            expected = torch.from_numpy(np.array(grey.rotate(angle))).float() / 255
            differences[angle] = ((after[0] - expected).abs() > 1 / 300).float().mean().item()
        best = min(differences, key=lambda angle: differences[angle])
        assert differences[best] < 0.02  # places half-way between two pixels may go to either
        angles.append(best)
        moved = np.array(Image.fromarray(mask[0].byte().numpy()).rotate(best))
        assert (mask_after[0].numpy() != moved).mean() < 0.02
    assert 0.3 < np.mean([angle == 0 for angle in angles]) < 0.7
    assert min(angles) < -10 and max(angles) > 10
    assert set(turned_masks.unique().tolist()) == {0.0, 1.0}
    assert turned[np.argmax(np.abs(angles)), :, 0, 0].max() == 0  # black corners
