"""The weights of `tiny` that come with this package: the whole network, taught on synthetic scenes.

How they were made: `python -m pretraining`; what they saw: `model/weights/tiny.json`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from model.config import ModelConfig

FILE = Path(__file__).resolve().parents[1] / "weights" / "tiny.safetensors"
_POSITIONS = "towers.clip.visual.positional_embedding"


@lru_cache(maxsize=1)
def _packaged() -> tuple[dict[str, Tensor], ModelConfig]:
    """The tensors of the file and the configuration they belong to, read and verified once. Never change them."""
    # The reader knows the network, which knows the backbones.
    from model import checkpoints

    tensors, content = checkpoints.read(FILE, checkpoints.CHECKPOINT_FORMAT)
    return tensors, ModelConfig.from_dict(content["config"])


def packaged_state(config: ModelConfig) -> dict[str, Tensor] | None:
    """Weights of the whole network for a complete configuration of `tiny`; None where the adapters are others.

    For another image size the position embeddings are interpolated. Raises CheckpointUnreadable where the
    installation is damaged.
    """
    tensors, own = _packaged()
    if (config.adapter_dim, config.adapter_layers) != (own.adapter_dim, own.adapter_layers):
        return None
    if config.image_size_px == own.image_size_px:
        return dict(tensors)
    from model.backbones.tiny import TinyTowers

    grid = (config.image_size_px or 0) // TinyTowers.patch_size
    return tensors | {_POSITIONS: resized_positions(tensors[_POSITIONS], grid)}


def resized_positions(positions: Tensor, grid: int) -> Tensor:
    """Position embeddings (1 + g², width), the class token first, for a grid of another size: (1 + grid², width)."""
    first, patches = positions[:1], positions[1:]
    old = round(len(patches) ** 0.5)
    maps = patches.T.reshape(1, -1, old, old)
    resized = F.interpolate(maps, (grid, grid), mode="bicubic", align_corners=False, antialias=grid < old)
    return torch.cat([first, resized[0].flatten(1).T])
