"""What the network knows of a backbone: two towers walked block by block, and the record that builds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from model.config import ModelConfig

RANDOM = "random"
"""As `Source.weights`: no file at all, weights from the random generator."""


class Towers(Protocol):
    """Two transformers walked block by block, so that adapters can step in between. B images, N = grid² patches.

    Vision tokens are (B, 1 + N, vision_width) with the class token first; text tokens (B, L, text_width), L at most
    context_length. Both towers have `depth` blocks. Weights are trained unless `frozen`. `mean` and `std` are those
    of the images the towers were trained on, RGB in [0, 1].
    """

    depth: int
    vision_width: int
    text_width: int
    joint_width: int
    grid: int
    context_length: int
    skip_widths: tuple[int, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    frozen: bool

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (B, context_length) int64, 0 where padded."""

    def embed_image(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalised images (B, 3, S, S) → vision tokens, and feature maps for the up-sampler, coarse to fine.

        Map k is (B, skip_widths[k], grid·2^(k+1), grid·2^(k+1)); a backbone without a stem has none.
        """

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Token ids (B, L) → text tokens before the first block."""

    def vision_block(self, index: int, x: Tensor) -> Tensor:
        """Block `index` of the vision tower."""

    def text_block(self, index: int, t: Tensor, tokens: Tensor) -> Tensor:
        """Block `index` of the text tower; `tokens` tells which positions are padding."""

    def patch_features(self, x: Tensor, before_last: Tensor) -> Tensor:
        """Vision tokens after and before the last block → patch features (B, N, joint_width), no class token."""

    def text_feature(self, t: Tensor, tokens: Tensor) -> Tensor:
        """Text tokens after the last block → one feature per prompt (B, joint_width), not normalised."""


@dataclass(frozen=True)
class Source:
    """Where the weights of a backbone come from; a field left at None takes the backbone's own hub id.

    weights: a local file, `hf-hub:owner/name` or `hf-hub:owner/name/file`, or RANDOM. tokenizer: a local folder or a
    hub id; only the backbones with a BERT need one.
    """

    weights: str | Path | None = None
    tokenizer: str | Path | None = None


@dataclass(frozen=True)
class Backbone:
    """What a name stands for: the settings that suit it, and how to build its towers from a complete configuration."""

    name: str
    image_size_px: int
    adapter_dim: int
    adapter_layers: tuple[int, ...]
    build: Callable[[ModelConfig, Source], nn.Module]
    packaged: Callable[[ModelConfig], dict[str, Tensor] | None] | None = None

    def whole_network(self, config: ModelConfig) -> dict[str, Tensor] | None:
        """Weights of the whole network that come with this package, if there are any for this configuration."""
        return self.packaged(config) if self.packaged else None

    def complete(self, config: ModelConfig) -> ModelConfig:
        """The configuration with every field that was left open filled in from this backbone."""
        fields = ("image_size_px", "adapter_dim", "adapter_layers")
        missing = {field: getattr(self, field) for field in fields if getattr(config, field) is None}
        return dataclasses.replace(config, **missing)
