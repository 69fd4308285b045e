"""Small worlds for the model tests: pictures of bright discs, and one untrained segmenter that is only read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model import Example, ModelConfig, Segmenter, Source

PROMPT = "a bright disc"


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """On small tensors and a busy machine, threads that wait for each other cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def disc(seed: int, height: int = 80, width: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A noisy grey picture (H, W) uint8 of one bright disc, and its mask (H, W)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    row, column, radius = rng.uniform(25, height - 25), rng.uniform(25, width - 25), rng.uniform(12, 22)
    mask = np.hypot(rows - row, columns - column) < radius
    grey = 70 + 90 * mask + rng.normal(0, 12, mask.shape)
    return np.clip(grey, 0, 255).astype(np.uint8), mask


def write_example(folder: Path, seed: int) -> Example:
    """Image and mask of `disc(seed)` as PNG files."""
    image, mask = disc(seed)
    paths = folder / f"image-{seed}.png", folder / f"mask-{seed}.png"
    Image.fromarray(image).save(paths[0])
    Image.fromarray(mask.astype(np.uint8) * 255).save(paths[1])
    return Example(*paths, prompt=PROMPT, group=f"g{seed}")


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("discs")
    return [write_example(folder, seed) for seed in range(6)]


@pytest.fixture(scope="session")
def segmenter():
    """Small and untrained. Read only."""
    return Segmenter.create(ModelConfig(image_size_px=64), seed=1, source=Source("random"))
