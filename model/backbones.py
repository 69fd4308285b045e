"""The CLIP towers MedCLIPSeg stands on: a registry from a name to what builds them.

A backbone is a `Backbone` record; what it builds fulfils `Towers`, and that is all the network knows of it. `tiny` is
small, random and trained together with the adapters; pretrained backbones fulfil the same interface, frozen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.errors import BadConfig, UnknownBackbone


class Towers(Protocol):
    """Two transformers walked block by block, so that adapters can step in between. B images, N = grid² patches.

    Vision tokens are (B, 1 + N, vision_width) with the class token first; text tokens (B, L, text_width), L at most
    context_length. Both towers have `depth` blocks. Weights are trained unless `frozen`.
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
        """Token ids (B, L) int64, 0 where padded, L the longest of these prompts."""

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

    def patch_features(self, x: Tensor) -> Tensor:
        """Vision tokens after the last block → patch features (B, N, joint_width), class token dropped."""

    def text_feature(self, t: Tensor, tokens: Tensor) -> Tensor:
        """Text tokens after the last block → one feature per prompt (B, joint_width), not normalised."""


@dataclass(frozen=True)
class Backbone:
    """What a name stands for: the settings that suit it, and how to build its towers from a complete configuration."""

    name: str
    image_size_px: int
    adapter_dim: int
    adapter_layers: tuple[int, ...]
    build: Callable[[ModelConfig], nn.Module]

    def complete(self, config: ModelConfig) -> ModelConfig:
        """The configuration with every field that was left open filled in from this backbone."""
        fields = ("image_size_px", "adapter_dim", "adapter_layers")
        missing = {field: getattr(self, field) for field in fields if getattr(config, field) is None}
        return dataclasses.replace(config, **missing)


class ConvStem(nn.Module):
    """Overlapping convolutions in place of CLIP's patch projection: (B, 3, S, S) → (B, width, S/8, S/8).

    Learning from a few dozen images needs the bias of convolutions; a plain patch projection learns next to nothing
    in a minute. The maps at S/4 and S/2 are kept for the up-sampler.
    """

    def __init__(self, widths: tuple[int, int], width: int) -> None:
        super().__init__()
        fine, coarse = widths
        self.fine = nn.Sequential(_conv(3, fine, stride=2), _conv(fine, fine))
        self.coarse = nn.Sequential(_conv(fine, coarse, stride=2), _conv(coarse, coarse))
        self.patches = nn.Sequential(_conv(coarse, width, stride=2), nn.Conv2d(width, width, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Returns the patch map and the two finer maps, coarse to fine."""
        # With the channels of a pixel side by side the convolutions of a CPU run a tenth faster.
        fine = self.fine(images.contiguous(memory_format=torch.channels_last))
        coarse = self.coarse(fine)
        return self.patches(coarse), (coarse, fine)


def _conv(wide_in: int, wide_out: int, stride: int = 1) -> nn.Module:
    """Convolution, normalisation that does not mix images, activation."""
    conv = nn.Conv2d(wide_in, wide_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(8, wide_out), nn.GELU())


class TinyTowers(nn.Module):
    """A small open_clip CLIP with random weights and a convolutional stem. Fulfils `Towers`; trained, not frozen."""

    depth = 3
    vision_width = 96
    text_width = 64
    joint_width = 64
    context_length = 77
    skip_widths = (48, 24)
    patch_size = 8
    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)
    frozen = False

    def __init__(self, image_size_px: int) -> None:
        super().__init__()
        # open_clip takes seconds to import, so only those who build a tower pay for it.
        from open_clip import CLIP, SimpleTokenizer

        self.grid = image_size_px // self.patch_size
        self._tokenizer = SimpleTokenizer(context_length=self.context_length)
        vision = {"layers": self.depth, "width": self.vision_width, "head_width": 32, "mlp_ratio": 2.0}
        text = {"layers": self.depth, "width": self.text_width, "heads": 2, "mlp_ratio": 2.0}
        vision |= {"patch_size": self.patch_size, "image_size": image_size_px}
        text |= {"context_length": self.context_length, "vocab_size": self._tokenizer.vocab_size}
        self.clip = CLIP(self.joint_width, vision, text)
        self.clip.visual.conv1 = ConvStem((self.skip_widths[1], self.skip_widths[0]), self.vision_width)
        # Word vectors stay random: a few dozen prompts cannot teach 49,408 of them, and they are most of the weights.
        self.clip.token_embedding.requires_grad_(False)
        self.clip.logit_scale.requires_grad_(False)

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """See Towers. Longer prompts are cut to 77 tokens, the end token kept."""
        tokens: Tensor = self._tokenizer(list(prompts))
        return tokens[:, : int((tokens != 0).sum(1).max())]

    def embed_image(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See Towers."""
        visual: Any = self.clip.visual
        patches, skips = visual.conv1(images)
        patches = patches.flatten(2).transpose(1, 2)
        first = visual.class_embedding.expand(len(images), 1, -1)
        return visual.ln_pre(torch.cat([first, patches], 1) + visual.positional_embedding), skips

    def embed_text(self, tokens: Tensor) -> Tensor:
        """See Towers."""
        return self.clip.token_embedding(tokens) + self.clip.positional_embedding[: tokens.shape[1]]

    def vision_block(self, index: int, x: Tensor) -> Tensor:
        """See Towers."""
        visual: Any = self.clip.visual
        return visual.transformer.resblocks[index](x)

    def text_block(self, index: int, t: Tensor, tokens: Tensor) -> Tensor:
        """See Towers. The causal mask already keeps padding, which comes last, from what it follows."""
        length = tokens.shape[1]
        return self.clip.transformer.resblocks[index](t, attn_mask=self.clip.attn_mask[:length, :length])

    def patch_features(self, x: Tensor) -> Tensor:
        """See Towers."""
        visual: Any = self.clip.visual
        return visual.ln_post(x[:, 1:]) @ visual.proj

    def text_feature(self, t: Tensor, tokens: Tensor) -> Tensor:
        """See Towers. The end token carries the largest id of CLIP's vocabulary."""
        ends = tokens.argmax(1)
        last = self.clip.ln_final(t[torch.arange(len(t), device=t.device), ends])
        return last @ self.clip.text_projection


def _build_tiny(config: ModelConfig) -> nn.Module:
    size = config.image_size_px
    if size is None or size % TinyTowers.patch_size:
        raise BadConfig(f"backbone tiny needs image_size_px in multiples of {TinyTowers.patch_size}, not {size!r}")
    return TinyTowers(size)


_REGISTRY = {
    backbone.name: backbone
    for backbone in [Backbone("tiny", image_size_px=96, adapter_dim=64, adapter_layers=(1, 2), build=_build_tiny)]
}


def names() -> tuple[str, ...]:
    """The names `get` knows, in order of registration."""
    return tuple(_REGISTRY)


def get(name: str) -> Backbone:
    """The backbone of that name. Raises UnknownBackbone."""
    if name not in _REGISTRY:
        raise UnknownBackbone(f"there is no backbone {name!r}; choose one of {', '.join(names())}")
    return _REGISTRY[name]
