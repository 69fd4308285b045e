"""`unimedclip` and `biomedclip`: a ViT-B/16 beside a BERT, as open_clip builds both.

BERT layers are called one by one, and answer a tensor or a tuple with the tensor in front, depending on the version
of transformers; taking the first element of a tensor would silently keep one prompt of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from model.backbones import files
from model.backbones.openai import OpenAiTowers, demand_size, embed_patches
from model.backbones.towers import Source, Towers
from model.config import ModelConfig
from model.errors import BackboneUnavailable, PromptTooLong

VOCABULARY = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
_BERT: Any = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


class BertTowers(nn.Module):
    """What both have in common: the text tower. Frozen."""

    depth = 12
    vision_width = 768
    text_width = 768
    joint_width = 512
    context_length = 256
    grid = 14
    skip_widths: tuple[int, ...] = ()
    mean, std = OpenAiTowers.mean, OpenAiTowers.std
    frozen = True

    def __init__(self, vocabulary: str) -> None:
        super().__init__()
        from open_clip.hf_model import HFTextEncoder
        from transformers import BertConfig

        config = BertConfig(**_BERT)
        self.text: Any = HFTextEncoder("", self.joint_width, config, "cls_last_hidden_state_pooler", "mlp")
        self.text.transformer.pooler = None  # BERT's own pooler is not part of these models
        self._vocabulary = vocabulary
        self._tokenizer: Any = None

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """See Towers. Raises PromptTooLong beyond 256 tokens and BackboneUnavailable without the vocabulary."""
        if self._tokenizer is None:
            self._tokenizer = _load_tokenizer(self._vocabulary, self.context_length)
        cleaned = [self._tokenizer.clean_fn(prompt) for prompt in prompts]
        tokens = torch.zeros(len(prompts), self.context_length, dtype=torch.long)
        for row, prompt in enumerate(cleaned):
            ids = self._tokenizer.tokenizer(prompt).input_ids
            if len(ids) > self.context_length:
                raise PromptTooLong(prompt, len(ids), self.context_length)
            tokens[row, : len(ids)] = torch.tensor(ids)
        return tokens

    def embed_text(self, tokens: Tensor) -> Tensor:
        """See Towers."""
        return cast(Tensor, self.text.transformer.embeddings(input_ids=tokens))

    def text_block(self, index: int, t: Tensor, tokens: Tensor) -> Tensor:
        """See Towers. Nobody attends to padding."""
        answer = self.text.transformer.encoder.layer[index](t, (tokens != 0)[:, None, None, :])
        return cast(Tensor, answer[0] if isinstance(answer, tuple) else answer)

    def text_feature(self, t: Tensor, tokens: Tensor) -> Tensor:
        """See Towers. The first token, [CLS], stands for the text."""
        return cast(Tensor, self.text.proj(t[:, 0]))


class UniMedTowers(BertTowers):
    """UniMed-CLIP (Khattak et al. 2024): OpenAI's vision transformer with QuickGELU. Fulfils `Towers`."""

    released = (
        ("vision_model.", "visual."),
        ("text_model.", "text."),
    )

    def __init__(self, vocabulary: str) -> None:
        super().__init__(vocabulary)
        from open_clip.transformer import QuickGELU, VisionTransformer

        self.visual: Any = VisionTransformer(
            image_size=224,
            patch_size=16,
            width=self.vision_width,
            layers=self.depth,
            heads=12,
            mlp_ratio=4.0,
            output_dim=self.joint_width,
            act_layer=QuickGELU,
        )

    def embed_image(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See Towers."""
        return embed_patches(self.visual, images), ()

    def vision_block(self, index: int, x: Tensor) -> Tensor:
        """See Towers."""
        return cast(Tensor, self.visual.transformer.resblocks[index](x))

    def patch_features(self, x: Tensor, before_last: Tensor) -> Tensor:
        """See Towers."""
        return cast(Tensor, self.visual.ln_post(x[:, 1:]) @ self.visual.proj)


class BiomedTowers(BertTowers):
    """BiomedCLIP (Zhang et al. 2023): timm's vision transformer. Fulfils `Towers`."""

    released = UniMedTowers.released

    def __init__(self, vocabulary: str) -> None:
        super().__init__(vocabulary)
        from open_clip.timm_model import TimmModel

        self.visual: Any = TimmModel("vit_base_patch16_224", self.joint_width, pool="", proj="linear")

    def embed_image(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See Towers."""
        trunk = self.visual.trunk
        patches = trunk.patch_embed(images)
        first = trunk.cls_token.expand(len(images), -1, -1)
        return torch.cat([first, patches], 1) + trunk.pos_embed, ()

    def vision_block(self, index: int, x: Tensor) -> Tensor:
        """See Towers."""
        return cast(Tensor, self.visual.trunk.blocks[index](x))

    def patch_features(self, x: Tensor, before_last: Tensor) -> Tensor:
        """See Towers."""
        return cast(Tensor, self.visual.head(self.visual.trunk.norm(x[:, 1:])))


def _load_tokenizer(vocabulary: str, context_length: int) -> Any:
    from open_clip.tokenizer import HFTokenizer

    try:
        return HFTokenizer(vocabulary, context_length=context_length)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BackboneUnavailable(
            f"the vocabulary {vocabulary} is not at hand ({reason}); check the network, or download its folder "
            "(vocab.txt, tokenizer_config.json) and give its path as tokenizer"
        ) from error


def build_unimedclip(config: ModelConfig, source: Source) -> nn.Module:
    """ViT-B/16 and BERT with the weights of UniMed-CLIP."""
    demand_size(config, 224)
    towers = UniMedTowers(str(source.tokenizer or VOCABULARY))
    hub = "hf-hub:TahaKoleilat/MedCLIPSeg/checkpoints/unimed_clip_vit_b16.pt"
    files.fill(towers, config.backbone, source, hub, (("text_encoder.", "text."),))
    return towers


def build_biomedclip(config: ModelConfig, source: Source) -> nn.Module:
    """ViT-B/16 and BERT with the weights of BiomedCLIP."""
    demand_size(config, 224)
    towers = BiomedTowers(str(source.tokenizer or VOCABULARY))
    hub = "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224/open_clip_pytorch_model.bin"
    files.fill(towers, config.backbone, source, hub, ())
    return towers


def _fulfil(unimed: UniMedTowers, biomed: BiomedTowers) -> tuple[Towers, Towers]:
    """Lets the type checker compare the classes with the interface; never called."""
    return unimed, biomed
