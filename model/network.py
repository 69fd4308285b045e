"""MedCLIPSeg as one module: two CLIP towers joined by probabilistic adapters, and a mask decoder. Always logits.

The mathematics is that of Koleilat et al., "MedCLIPSeg" (CVPR 2026, arXiv 2602.20423) and its released code. Padding
of the prompt is masked, so that neither its length nor its neighbours in a batch matter; with `padding` "attended" it
is not, as in the released code. Chance comes from outside, as a `Noise`; without one every value takes its mean and
the pass is deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.backbones import Backbone, Source, Towers
from model.config import ModelConfig
from model.errors import BadConfig

Noise = Callable[[int, int], Tensor]
"""Asked for (rows, width), answers standard normal numbers (B, rows, width), new ones each time."""


class ProbabilisticAttention(nn.Module):
    """Single-head cross-attention whose keys and values are Gaussians with diagonal variance. Width d."""

    def __init__(self, width: int, beta: float, gate_init: float) -> None:
        super().__init__()
        self.beta = beta
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, 2 * width)
        self.v_proj = nn.Linear(width, 2 * width)
        self.out_proj = nn.Linear(width, width)
        self.norm_k = nn.LayerNorm(width)
        self.norm_v = nn.LayerNorm(width)
        self.gate = nn.Parameter(torch.tensor(float(gate_init)))

    def forward(self, query: Tensor, context: Tensor, noise: Tensor | None, visible: Tensor | None = None) -> Tensor:
        """query (B, n, d) attends to context (B, m, d) → (B, n, d).

        noise: (B, m, d), or None for the mean of the values; visible: bool (B, m), False where nobody may look.
        An uncertain key lowers its own score, by beta standard deviations. The gate mixes with the query itself.
        """
        k_mean, k_variance = _gaussian(self.k_proj(context), self.norm_k)
        v_mean, v_variance = _gaussian(self.v_proj(context), self.norm_v)
        values = v_mean if noise is None else v_mean + v_variance.sqrt() * noise
        output = self.out_proj(self._attention(self.q_proj(query), k_mean, k_variance, visible) @ values)
        gate = torch.sigmoid(self.gate)
        return gate * output + (1 - gate) * query

    def _attention(self, q: Tensor, k_mean: Tensor, k_variance: Tensor, visible: Tensor | None) -> Tensor:
        """Weights (B, n, m), each row adding up to 1."""
        width = q.shape[-1]
        score_mean = q @ k_mean.mT / math.sqrt(width)
        score_variance = (q * q) @ k_variance.mT / width
        # The root's slope is infinite at 0, where only an all-zero query can take it.
        score = score_mean - self.beta * score_variance.clamp_min(1e-12).sqrt()
        if visible is not None:
            score = score.masked_fill(~visible[:, None, :], -torch.inf)
        return score.softmax(-1)


def _gaussian(projected: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Splits (B, m, 2d) into normalised means and positive variances, each (B, m, d)."""
    mean, raw = projected.chunk(2, -1)
    return norm(mean), F.softplus(raw) + 1e-6


class Adapter(nn.Module):
    """A PVL adapter: what one tower is told by the other, added to its tokens before a transformer block."""

    def __init__(self, towers: Towers, config: ModelConfig) -> None:
        super().__init__()
        width = cast(int, config.adapter_dim)
        self.context_length = towers.context_length
        self.proj_vis_down = nn.Linear(towers.vision_width, width, bias=False)
        self.proj_txt_down = nn.Linear(towers.text_width, width, bias=False)
        self.proj_vis_up = nn.Linear(width, towers.vision_width, bias=False)
        self.proj_txt_up = nn.Linear(width, towers.text_width, bias=False)
        self.cross_attn_img_to_txt = ProbabilisticAttention(width, config.beta, config.gate_init)
        self.cross_attn_txt_to_img = ProbabilisticAttention(width, config.beta, config.gate_init)

    def forward(self, x: Tensor, t: Tensor, visible: Tensor | None, noise: Noise | None) -> tuple[Tensor, Tensor]:
        """x (B, 1 + N, Dv), t (B, L, Dt), visible bool (B, L) or None for all → what to add to each.

        The text attends to the image tokens already updated by the text.
        """
        image, text = self.proj_vis_down(x), self.proj_txt_down(t)
        length, width = text.shape[1:]
        # Always a whole context of noise, so that trimming the padding does not shift the numbers that follow.
        text_noise = None if noise is None else noise(self.context_length, width)[:, :length]
        image = self.cross_attn_img_to_txt(image, text, text_noise, visible)
        image_noise = None if noise is None else noise(image.shape[1], width)
        text = self.cross_attn_txt_to_img(text, image, image_noise)
        return self.proj_vis_up(image), self.proj_txt_up(text)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of a map (B, C, h, w)."""

    def forward(self, maps: Tensor) -> Tensor:
        """Same shape out."""
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Upscale(nn.Module):
    """Doubles the resolution of a map (B, C, h, w). A skip map of the backbone, if any, joins at the finer size."""

    def __init__(self, width: int, skip_width: int | None) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.skip = None if skip_width is None else nn.Conv2d(skip_width, width, 1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = ChannelNorm(width, eps=1e-6)

    def forward(self, maps: Tensor, skip: Tensor | None, image_of: Tensor) -> Tensor:
        """maps (R, C, h, w), skip (B, K, 2h, 2w) or None, image_of (R,) the image of each row → (R, C, 2h, 2w)."""
        finer = self.conv1(maps)
        if self.skip is not None and skip is not None:
            finer = finer + self.skip(skip)[image_of]
        return self.norm(self.conv2(F.gelu(finer)))


@dataclass(frozen=True)
class Output:
    """logits (R, S, S) in the model frame; patches (R, N, E) and text (R, E), the features before normalisation."""

    logits: Tensor
    patches: Tensor
    text: Tensor


@dataclass(frozen=True)
class Seen:
    """Images as far as the network takes them before it reads a prompt: vision tokens (B, 1 + N, Dv) at the first
    adapter, skip maps of the backbone, and the side of the model frame in pixels."""

    tokens: Tensor
    skips: tuple[Tensor, ...]
    size: int


class Network(nn.Module):
    """The whole of MedCLIPSeg over the towers of one backbone. `config` must be complete (`Backbone.complete`)."""

    N_UPSCALE = 2

    def __init__(self, config: ModelConfig, backbone: Backbone, source: Source) -> None:
        super().__init__()
        self.config = config
        self.towers = backbone.build(config, source)
        towers = self.clip_towers
        if towers.frozen:
            self.towers.requires_grad_(False)
        self.layers = cast(tuple[int, ...], config.adapter_layers)
        if self.layers and self.layers[-1] >= towers.depth:
            raise BadConfig(
                f"adapter_layers ask for block {self.layers[-1]}; the last of {config.backbone} is {towers.depth - 1}"
            )
        self.pvl_adapters = nn.ModuleList(Adapter(towers, config) for _ in self.layers)
        width = towers.joint_width
        self.mask_head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        skips = [*towers.skip_widths, *[None] * self.N_UPSCALE][: self.N_UPSCALE]
        self.upscale = nn.ModuleList(Upscale(width, skip) for skip in skips)

    @property
    def clip_towers(self) -> Towers:
        """The towers, seen as what the network may use of them."""
        return cast(Towers, self.towers)

    def train(self, mode: bool = True) -> Self:
        """As for any module, but frozen towers stay as in inference: their dropout would be noise nobody learns from.

        Who wants that noise (the released code trains with it) calls `towers.train()` afterwards.
        """
        super().train(mode)
        if self.clip_towers.frozen:
            self.towers.eval()
        return self

    def own_parts(self) -> dict[str, Tensor]:
        """Every tensor of the network but those of frozen towers, which stay in the backbone's own file."""
        towers_are_ours = not self.clip_towers.frozen
        return {n: t for n, t in self.state_dict().items() if towers_are_ours or not n.startswith("towers.")}

    def forward(
        self,
        images: Tensor,
        tokens: Tensor,
        noise: Noise | None = None,
        n_draws: int = 1,
        image_of: Tensor | None = None,
    ) -> Output:
        """images (B, 3, S, S) normalised, tokens (R, L), one row a prompt → an Output of n_draws·R rows, draw by draw.

        image_of (R,) int64 names the image of each prompt; None: one prompt an image, in order. Row k·R + r is draw k
        of prompt r, and noise must answer for that many rows.
        """
        if image_of is None:
            image_of = torch.arange(len(tokens), device=tokens.device)
        return self.answer(self.look(images), tokens, noise, n_draws, image_of)

    def look(self, images: Tensor) -> Seen:
        """What of images (B, 3, S, S), normalised, depends neither on a prompt nor on chance."""
        towers = self.clip_towers
        x, skips = towers.embed_image(images)
        for index in range(self._first):
            x = towers.vision_block(index, x)
        return Seen(x, skips, images.shape[-1])

    def answer(self, seen: Seen, tokens: Tensor, noise: Noise | None, n_draws: int, image_of: Tensor) -> Output:
        """The rest of `forward`, for images that were looked at before."""
        towers, first = self.clip_towers, self._first
        t = towers.embed_text(tokens)
        # Nothing before the first adapter depends on chance or on the other tower, so it runs once for all rows.
        for index in range(first):
            t = towers.text_block(index, t, tokens)
        image_of, tokens = image_of.repeat(n_draws), tokens.repeat(n_draws, 1)
        x, t = seen.tokens[image_of], t.repeat(n_draws, 1, 1)
        visible = None if self.config.padding == "attended" else tokens != 0
        before_last = x
        for index in range(first, towers.depth):
            if index in self.layers:
                to_x, to_t = self.pvl_adapters[self.layers.index(index)](x, t, visible, noise)
                x, t = x + to_x, t + to_t
            before_last = x
            x, t = towers.vision_block(index, x), towers.text_block(index, t, tokens)
        patches, text = towers.patch_features(x, before_last), towers.text_feature(t, tokens)
        return Output(self._decode(patches, text, seen.skips, image_of, seen.size), patches, text)

    @property
    def _first(self) -> int:
        """The first block that an adapter stands before; without any, the last block."""
        return min(self.layers, default=self.clip_towers.depth - 1)

    def _decode(self, patches: Tensor, text: Tensor, skips: tuple[Tensor, ...], image_of: Tensor, size: int) -> Tensor:
        """Patch features (R, N, E) and text features (R, E) → logits (R, size, size)."""
        grid = self.clip_towers.grid
        maps = F.normalize(patches, dim=-1).mT.reshape(len(patches), -1, grid, grid)
        for k, stage in enumerate(self.upscale):
            maps = stage(maps, skips[k] if k < len(skips) else None, image_of)
        weights = self.mask_head(F.normalize(text, dim=-1))
        logits = torch.einsum("rchw,rc->rhw", maps, weights)
        return F.interpolate(logits[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]
