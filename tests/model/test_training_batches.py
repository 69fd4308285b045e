"""Which example is seen when, and which are set aside: whole groups, for ever, and only when there are enough."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import Example, ModelConfig, TrainConfig
from model.batches import TrainingSet, batch, noise, pixels, positions, set_aside, steps_per_epoch

CONFIG = TrainConfig(validation_share=0.2, validation_min_images=10)


def example(group, number=0):
    return Example(Path(f"{group}-{number}.png"), Path("mask.png"), "a disc", group)


POOL = [example(f"patient {i // 4}", i) for i in range(400)]


def test_whole_groups_are_set_aside_about_as_many_as_asked_for():
    learnt, aside = set_aside(POOL, CONFIG)
    assert sorted(learnt + aside, key=POOL.index) == POOL
    assert not {e.group for e in learnt} & {e.group for e in aside}
    assert 0.1 < len(aside) / len(POOL) < 0.3
    assert learnt == sorted(learnt, key=POOL.index)


@settings(max_examples=30)
@given(st.sets(st.integers(0, 399), min_size=150), st.integers(0, 5), st.sampled_from([0.2, 0.3]))
def test_a_group_once_set_aside_is_never_learnt_from(chosen, seed, share):
    """Neither the other examples, nor the seed, nor a larger share bring it back."""
    some = [POOL[i] for i in sorted(chosen)]
    validating = {e.group for e in set_aside(POOL, CONFIG)[1]}
    learnt, aside = set_aside(some, dataclasses.replace(CONFIG, seed=seed, validation_share=share))
    if aside:
        assert not {e.group for e in learnt} & validating


@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(CONFIG, validation_share=0.0),
        dataclasses.replace(CONFIG, validation_min_images=200),
        dataclasses.replace(CONFIG, keep="last"),
    ],
)
def test_nothing_is_set_aside_when_not_wanted_or_too_little(config):
    assert set_aside(POOL, config) == (POOL, [])


def test_two_groups_are_too_few_and_patience_needs_some():
    two = [e for e in POOL if e.group in ("patient 1", "patient 2")] * 50
    everything = dataclasses.replace(CONFIG, validation_share=0.99)
    assert set_aside(two, everything) == (two, [])
    assert set_aside(POOL, dataclasses.replace(CONFIG, keep="last", patience=3))[1]
    assert set_aside([], CONFIG) == ([], [])


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3), st.sampled_from(["fill", "keep"]))
def test_every_example_is_seen_in_every_epoch(n, batch_size, epoch, short_batch):
    config = TrainConfig(batch_size=batch_size, short_batch=short_batch)
    steps = steps_per_epoch(n, config)
    parts = [positions(n, config, epoch * steps + i) for i in range(steps)]
    assert set(np.concatenate(parts)) == set(range(n))
    if short_batch == "keep":
        assert sum(map(len, parts)) == n
    else:
        assert {len(part) for part in parts} == {min(batch_size, n)}
    assert all(len(set(part)) == len(part) for part in parts)


def test_epochs_differ_and_follow_the_seed():
    first, second = (positions(30, TrainConfig(batch_size=30), step).tolist() for step in (0, 1))
    assert first != second and first == positions(30, TrainConfig(batch_size=30), 0).tolist()
    assert first != positions(30, TrainConfig(batch_size=30, seed=1), 0).tolist()


def test_a_batch_is_images_and_masks_in_step(examples):
    config = ModelConfig(image_size_px=32)
    data = TrainingSet.load(examples, config)
    plain = TrainConfig(batch_size=4, augmentation="none")
    got = batch(data, plain, 1, torch.device("cpu"))
    for image, mask, i in zip(got.images, got.masks, positions(6, plain, 1), strict=True):
        assert np.array_equal((image.permute(1, 2, 0).numpy() * 255).round(), data.images[i])
        assert np.array_equal(mask[0].numpy() > 0, data.masks[i])
    for augmentation in ("full", "rotation"):
        varied = dataclasses.replace(plain, augmentation=augmentation)
        one, other = (batch(data, varied, 1, torch.device("cpu")).images for _ in range(2))
        assert torch.equal(one, other) and not torch.equal(one, got.images)


def test_images_of_eight_and_sixteen_bits_meet_in_one_set(examples):
    data = TrainingSet.load(examples[:2], ModelConfig(image_size_px=32))
    from model.batches import _one_depth

    deep = data.images[0].astype(np.uint16) * 257
    both = _one_depth([deep, data.images[1]])
    values = pixels(both, torch.device("cpu"))
    assert torch.allclose(values, pixels(data.images, torch.device("cpu")), atol=1e-6)


def test_the_fingerprint_notices_a_pixel_a_mask_and_a_prompt(examples):
    data = TrainingSet.load(examples[:2], ModelConfig(image_size_px=32))
    images, masks = data.images.copy(), data.masks.copy()
    images[0, 0, 0, 0] ^= 1
    masks[1, 5, 5] ^= True
    others = (
        dataclasses.replace(data, images=images),
        dataclasses.replace(data, masks=masks),
        dataclasses.replace(data, prompts=("a disc", "a disk")),
    )
    assert len({data.digest(), *(other.digest() for other in others)}) == 4
    assert data.digest() == TrainingSet.load(examples[:2], ModelConfig(image_size_px=32)).digest()


def test_rows_see_the_same_noise_however_the_batch_is_divided():
    cpu = torch.device("cpu")
    whole, part = noise(7, slice(0, 5), 5, cpu), noise(7, slice(2, 4), 5, cpu)
    for _ in range(2):
        assert torch.equal(whole(3, 6)[2:4], part(3, 6))
    assert not torch.equal(noise(8, slice(0, 5), 5, cpu)(3, 6), noise(7, slice(0, 5), 5, cpu)(3, 6))
