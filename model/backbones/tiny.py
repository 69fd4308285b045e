"""`tiny`: a small CLIP with a convolutional stem, trained whole, that learns on a CPU in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model.backbones import openai
from model.backbones.towers import Source
from model.config import ModelConfig
from model.errors import BadConfig


class ConvStem(nn.Module):
    """Overlapping convolutions in place of CLIP's patch projection: (B, 3, S, S) → (B, width, S/8, S/8).

    Learning from a few dozen images needs the bias of convolutions; a plain patch projection learns next to nothing
    in a minute. The maps at S/4 and S/2 are kept for the up-sampler.
    """

    def __init__(self, widths: tuple[int, int], width: int) -> None:
        super().__init__()
        fine, coarse = widths
        self.fine = nn.Sequential(_conv(3, fine, stride=2), _conv(fine, fine))
        self.coarse = nn.Sequential(_conv(fine, coarse, stride=2), Residual(coarse))
        self.patches = nn.Sequential(_conv(coarse, width, stride=2), Residual(width), nn.Conv2d(width, width, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Returns the patch map and the two finer maps, coarse to fine."""
        # With the channels of a pixel side by side the convolutions of a CPU run a tenth faster.
        fine = self.fine(images.contiguous(memory_format=torch.channels_last))
        coarse = self.coarse(fine)
        return self.patches(coarse), (coarse, fine)


class Residual(nn.Module):
    """Two convolutions whose result is added to what they saw. (B, width, h, w) in and out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(width, width), _conv(width, width))

    def forward(self, maps: Tensor) -> Tensor:
        """Same shape out."""
        added: Tensor = self.body(maps)
        return maps + added


def _conv(wide_in: int, wide_out: int, stride: int = 1) -> nn.Module:
    """Convolution, normalisation that does not mix images, activation."""
    conv = nn.Conv2d(wide_in, wide_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(8, wide_out), nn.GELU())


WORD_SEED, WORD_STD = 7, 0.02


@lru_cache(maxsize=1)
def word_vectors(n_words: int, width: int) -> NDArray[np.float32]:
    """One vector for every word of the vocabulary, (n_words, width), mean 0: the same on every machine and for ever.

    A few dozen prompts cannot teach 49,408 of them, and stored they would be most of a checkpoint, so they follow
    from a formula. Uniform numbers off the raw bits: unlike numpy's distributions those never change.
    """
    raw = np.random.PCG64(WORD_SEED).random_raw(n_words * width // 2).astype("<u8").view("<u4")
    vectors = (raw.astype(np.float64) / 2**32 - 0.5) * (WORD_STD * 12**0.5)
    return vectors.astype(np.float32).reshape(n_words, width)


class TinyTowers(nn.Module):
    """A small open_clip CLIP with a convolutional stem, at random. Fulfils `Towers`; trained, not frozen."""

    depth = 3
    vision_width = 96
    text_width = 64
    joint_width = 32
    context_length = 77
    skip_widths = (48, 24)
    patch_size = 8
    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)
    frozen = False
    words: Tensor

    def __init__(self, image_size_px: int) -> None:
        super().__init__()
        # open_clip takes seconds to import, so only those who build a tower pay for it.
        from open_clip import CLIP

        self.grid = image_size_px // self.patch_size
        vision = {"layers": self.depth, "width": self.vision_width, "head_width": 32, "mlp_ratio": 2.0}
        text = {"layers": self.depth, "width": self.text_width, "heads": 2, "mlp_ratio": 2.0}
        vision |= {"patch_size": self.patch_size, "image_size": image_size_px}
        # Its own word vectors are left as small as may be, since they give way to ours.
        text |= {"context_length": self.context_length, "vocab_size": 1}
        self.clip = CLIP(self.joint_width, vision, text)
        self.clip.visual.conv1 = ConvStem((self.skip_widths[1], self.skip_widths[0]), self.vision_width)
        del self.clip.token_embedding
        words = torch.from_numpy(word_vectors(openai.byte_pairs().vocab_size, self.text_width))
        self.register_buffer("words", words, persistent=False)
        self.clip.logit_scale.requires_grad_(False)

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """See Towers. Raises PromptTooLong beyond 77 tokens."""
        return openai.tokenize(prompts, self.context_length)

    def embed_image(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See Towers."""
        visual: Any = self.clip.visual
        patches, skips = visual.conv1(images)
        patches = patches.flatten(2).transpose(1, 2)
        first = visual.class_embedding.expand(len(images), 1, -1)
        return visual.ln_pre(torch.cat([first, patches], 1) + visual.positional_embedding), skips

    def embed_text(self, tokens: Tensor) -> Tensor:
        """See Towers."""
        return F.embedding(tokens, self.words) + self.clip.positional_embedding[: tokens.shape[1]]

    def vision_block(self, index: int, x: Tensor) -> Tensor:
        """See Towers."""
        visual: Any = self.clip.visual
        return visual.transformer.resblocks[index](x)

    def text_block(self, index: int, t: Tensor, tokens: Tensor) -> Tensor:
        """See Towers. The causal mask already keeps padding, which comes last, from what it follows."""
        length = tokens.shape[1]
        return self.clip.transformer.resblocks[index](t, attn_mask=self.clip.attn_mask[:length, :length])

    def patch_features(self, x: Tensor, before_last: Tensor) -> Tensor:
        """See Towers."""
        visual: Any = self.clip.visual
        return visual.ln_post(x[:, 1:]) @ visual.proj

    def text_feature(self, t: Tensor, tokens: Tensor) -> Tensor:
        """See Towers. The end token carries the largest id of CLIP's vocabulary."""
        ends = tokens.argmax(1)
        last = self.clip.ln_final(t[torch.arange(len(t), device=t.device), ends])
        return last @ self.clip.text_projection


def build(config: ModelConfig, source: Source) -> nn.Module:
    """The towers of `tiny`, at random; `source` is not asked, since its weights are those of the whole network."""
    size = config.image_size_px
    if size is None or size % TinyTowers.patch_size:
        raise BadConfig(f"backbone tiny needs image_size_px in multiples of {TinyTowers.patch_size}, not {size!r}")
    return TinyTowers(size)
