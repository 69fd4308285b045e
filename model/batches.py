"""What a run learns from: examples in the model frame, and the batch of each step.

Everything random follows from the seed of the run and the number of the step, never from what happened before.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.augmentation import augment, may_flip, rotate
from model.config import ModelConfig, TrainConfig
from model.data import Example, load_pairs
from model.errors import NoExamples
from model.frames import Pixels, mask_to_model_frame, to_model_frame
from model.network import Noise

# Each use of chance has a stream of its own, told apart by these numbers behind the seed.
ORDER, AUGMENTATION, NOISE, DROPOUT, VALIDATION = range(5)

MIN_VALIDATION_GROUPS = 3


def rng(*numbers: int) -> np.random.Generator:
    """The generator that belongs to these numbers: seed, stream, step."""
    return np.random.default_rng(list(numbers))


def torch_seed(*numbers: int) -> int:
    """One 63-bit seed out of several numbers."""
    return int(rng(*numbers).integers(2**63))


@dataclass(frozen=True)
class TrainingSet:
    """All examples in the model frame: images (n, S, S, 3) uint8 or uint16, masks (n, S, S) bool, one prompt each."""

    images: Pixels
    masks: NDArray[np.bool_]
    prompts: tuple[str, ...]

    @classmethod
    def load(cls, examples: Sequence[Example], config: ModelConfig) -> TrainingSet:
        """Read the files and bring them into the frame of a complete configuration. Raises NoExamples, BadExample."""
        if not examples:
            raise NoExamples("there is nothing to train on; annotate some images first")
        pairs = load_pairs(
            examples, lambda image, mask: (to_model_frame(image, config), mask_to_model_frame(mask, config))
        )
        images, masks = zip(*pairs, strict=True)
        return cls(_one_depth(images), np.stack(masks), tuple(example.prompt for example in examples))

    def __len__(self) -> int:
        return len(self.prompts)

    def digest(self) -> str:
        """A fingerprint of all pixels and prompts."""
        total = hashlib.sha256(repr((self.images.shape, self.prompts)).encode())
        total.update(self.images.data)
        total.update(self.masks.view(np.uint8).data)
        return total.hexdigest()


def _one_depth(images: Sequence[Pixels]) -> Pixels:
    """Images (S, S, 3) in one array; with 16 bits for all where some have them."""
    if len({image.dtype for image in images}) > 1:
        images = [image if image.dtype == np.uint16 else image.astype(np.uint16) * 257 for image in images]
    return cast(Pixels, np.stack(images))


def set_aside(examples: Sequence[Example], config: TrainConfig) -> tuple[list[Example], list[Example]]:
    """The examples to train on, and those to choose the best weights by: whole groups, validation_share of them.

    The hash of a group alone decides, so that a group that once validated does so in every later run, also of another
    seed, and the weights a run starts from have not learnt it by heart. None are set aside where they would be too few
    to tell good weights from lucky ones: fewer than validation_min_images or MIN_VALIDATION_GROUPS.
    """
    if config.keep == "last" and config.patience is None:
        return list(examples), []
    aside = {group for group in {example.group for example in examples} if _hash(group) < config.validation_share}
    sizes = Counter(example.group in aside for example in examples)
    enough = sizes[True] >= config.validation_min_images and len(aside) >= MIN_VALIDATION_GROUPS
    if not enough or not sizes[False]:
        return list(examples), []
    return [e for e in examples if e.group not in aside], [e for e in examples if e.group in aside]


def _hash(group: str) -> float:
    """A number in [0, 1) that belongs to the group. The word before it keeps this split apart from other splits."""
    return int.from_bytes(hashlib.sha256(f"validation/{group}".encode()).digest()[:8]) / 2**64


def steps_per_epoch(n_examples: int, config: TrainConfig) -> int:
    """How many batches it takes to see every example."""
    return math.ceil(n_examples / config.batch_size)


def positions(n_examples: int, config: TrainConfig, step: int) -> NDArray[np.intp]:
    """Which examples the step (from 0) sees: each epoch shuffles anew."""
    epoch, place = divmod(step, steps_per_epoch(n_examples, config))
    order = rng(config.seed, ORDER, epoch).permutation(n_examples)
    size = min(config.batch_size, n_examples)
    if config.short_batch == "keep":
        return order[place * size : (place + 1) * size]
    return np.take(order, np.arange(place * size, (place + 1) * size), mode="wrap")


@dataclass(frozen=True)
class Batch:
    """What one step learns from: images (B, 3, S, S) in [0, 1] and masks (B, 1, S, S), on the device; B prompts."""

    images: Tensor
    masks: Tensor
    prompts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.prompts)


def batch(data: TrainingSet, config: TrainConfig, step: int, device: torch.device) -> Batch:
    """The batch of a step (from 0), varied as the configuration asks."""
    chosen = positions(len(data), config, step)
    prompts = tuple(data.prompts[i] for i in chosen)
    images, masks = (
        pixels(data.images[chosen], device),
        torch.from_numpy(data.masks[chosen]).to(device)[:, None].float(),
    )
    chance = rng(config.seed, AUGMENTATION, step)
    if config.augmentation == "full":
        images, masks = augment(images, masks, chance, may_flip(prompts))
    elif config.augmentation == "rotation":
        images, masks = rotate(images, masks, chance)
    return Batch(images, masks, prompts)


def pixels(images: Pixels, device: torch.device) -> Tensor:
    """Images (B, S, S, 3) → (B, 3, S, S) in [0, 1] on the device."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / np.iinfo(images.dtype).max


def noise(seed: int, rows: slice, n_rows: int, device: torch.device) -> Noise:
    """Rows of the noise of a whole batch of n_rows: the same numbers however the batch is divided.

    Drawn where it is used; the numbers of a GPU are not those of a CPU.
    """
    generator = torch.Generator(device).manual_seed(seed)
    return lambda m, width: torch.randn(n_rows, m, width, generator=generator, device=device)[rows]
