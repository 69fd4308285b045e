"""`clip` and `pubmedclip`: OpenAI's CLIP as open_clip builds it, with the patch features of MaskCLIP.

Patch features come from the value path of the last vision block alone, as MedCLIPSeg's released code takes them; the
attention and MLP of that block are never used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.backbones import files
from model.backbones.towers import Source, Towers
from model.config import ModelConfig
from model.errors import BadConfig, PromptTooLong

_PREFIXES = (("visual.", "clip.visual."), ("", "clip."))


class OpenAiTowers(nn.Module):
    """Fulfils `Towers`, frozen. Both towers are pre-norm transformers; the text attends causally."""

    depth = 12
    vision_width = 768
    text_width = 512
    joint_width = 512
    context_length = 77
    skip_widths: tuple[int, ...] = ()
    mean = (0.48145466, 0.4578275, 0.40821073)
    std = (0.26862954, 0.26130258, 0.27577711)
    frozen = True
    released = (
        ("vision_model.", "clip.visual."),
        ("clip_model.token_embedding.", "clip.token_embedding."),
        ("text_model.", "clip."),
    )
    """Prefixes of a released MedCLIPSeg checkpoint and what they are here."""

    def __init__(self, architecture: str, image_size_px: int) -> None:
        super().__init__()
        import open_clip

        self.clip: Any = open_clip.CLIP(**open_clip.get_model_config(architecture))
        del self.clip.logit_scale  # only contrastive pretraining needs it
        self.grid = image_size_px // self.clip.visual.patch_size[0]

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """See Towers. Raises PromptTooLong beyond 77 tokens."""
        return tokenize(prompts, self.context_length)

    def embed_image(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See Towers."""
        return embed_patches(self.clip.visual, images), ()

    def embed_text(self, tokens: Tensor) -> Tensor:
        """See Towers."""
        return self.clip.token_embedding(tokens) + self.clip.positional_embedding[: tokens.shape[1]]

    def vision_block(self, index: int, x: Tensor) -> Tensor:
        """See Towers. The last block stands still: `patch_features` takes its value path by itself."""
        return x if index == self.depth - 1 else self.clip.visual.transformer.resblocks[index](x)

    def text_block(self, index: int, t: Tensor, tokens: Tensor) -> Tensor:
        """See Towers. The causal mask already keeps padding, which comes last, from what it follows."""
        length = tokens.shape[1]
        return self.clip.transformer.resblocks[index](t, attn_mask=self.clip.attn_mask[:length, :length])

    def patch_features(self, x: Tensor, before_last: Tensor) -> Tensor:
        """See Towers. MaskCLIP (Zhou et al. 2022): values and output projection of the last block, no attention."""
        visual = self.clip.visual
        block = visual.transformer.resblocks[-1]
        width = self.vision_width
        values = F.linear(
            block.ln_1(before_last[:, 1:]), block.attn.in_proj_weight[2 * width :], block.attn.in_proj_bias[2 * width :]
        )
        return visual.ln_post(block.attn.out_proj(values)) @ visual.proj

    def text_feature(self, t: Tensor, tokens: Tensor) -> Tensor:
        """See Towers. The end token carries the largest id of CLIP's vocabulary."""
        last = t[torch.arange(len(t), device=t.device), tokens.argmax(1)]
        return self.clip.ln_final(last) @ self.clip.text_projection


def tokenize(prompts: Sequence[str], context_length: int) -> Tensor:
    """CLIP's byte pairs: (B, context_length) int64, 0 where padded. Raises PromptTooLong."""
    tokenizer = byte_pairs()
    for prompt in prompts:
        n_tokens = len(tokenizer.encode(prompt)) + 2
        if n_tokens > context_length:
            raise PromptTooLong(prompt, n_tokens, context_length)
    tokens: Tensor = tokenizer(list(prompts), context_length)
    return tokens


@cache
def byte_pairs() -> Any:
    """CLIP's tokenizer. Made once: reading its vocabulary takes a tenth of a second."""
    from open_clip import SimpleTokenizer

    return SimpleTokenizer()


def embed_patches(visual: Any, images: Tensor) -> Tensor:
    """Vision tokens of an open_clip VisionTransformer before its first block."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    first = visual.class_embedding.expand(len(images), 1, -1)
    tokens: Tensor = visual.ln_pre(torch.cat([first, patches], 1) + visual.positional_embedding)
    return tokens


def demand_size(config: ModelConfig, size: int) -> int:
    """The size the backbone was pretrained at. Raises BadConfig for another one."""
    if config.image_size_px != size:
        raise BadConfig(f"backbone {config.backbone} needs image_size_px {size}, not {config.image_size_px}")
    return size


def build_clip(config: ModelConfig, source: Source) -> nn.Module:
    """ViT-B/16 with OpenAI's weights."""
    towers = OpenAiTowers("ViT-B-16-quickgelu", demand_size(config, 224))
    files.fill(towers, config.backbone, source, "hf-hub:timm/vit_base_patch16_clip_224.openai", _PREFIXES)
    return towers


def build_pubmedclip(config: ModelConfig, source: Source) -> nn.Module:
    """ViT-B/32 with the weights of PubMedCLIP (Eslami et al. 2021)."""
    towers = OpenAiTowers("ViT-B-32-quickgelu", demand_size(config, 224))
    hub = "hf-hub:TahaKoleilat/MedCLIPSeg/checkpoints/PubMedCLIP_ViT32.pth"
    files.fill(towers, config.backbone, source, hub, _PREFIXES)
    return towers


def _fulfils(towers: OpenAiTowers) -> Towers:
    """Lets the type checker compare the class with the interface; never called."""
    return towers
