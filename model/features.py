"""What of an image can be kept between questions: another prompt for the same image then costs less.

How much less depends on the backbone: the adapters make the image tower listen to the prompt from an early block on, so
a ViT-B keeps its first block out of twelve, `tiny` its convolutional stem, which is most of its work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.frames import Pixels, Placement, check_image
from model.network import Seen
from model.segmentation import Segmentation
from model.segmenter import Segmenter, check_prompts, segmentation_of


@dataclass(frozen=True)
class ImageFeatures:
    """An image as far as one segmenter takes it before it reads a prompt; good for that segmenter in that precision.

    `weights` (patches,) say how much of its patches the image covers.
    """

    seen: Seen
    weights: Tensor
    place: Placement

    @property
    def nbytes(self) -> int:
        """Memory they hold, on the segmenter's device."""
        return sum(tensor.nbytes for tensor in (self.seen.tokens, *self.seen.skips, self.weights))


@torch.inference_mode()
def encode(segmenter: Segmenter, image: Pixels) -> ImageFeatures:
    """Take an image of any size as far as it goes without a prompt. Raises BadInput."""
    check_image(image)
    pixels, [weights] = segmenter.pixels([image]), segmenter.patch_weights([image])
    with segmenter.autocast():
        seen = segmenter.network.look(pixels)
    return ImageFeatures(seen, weights, Placement.of(image.shape, segmenter.config))


@torch.inference_mode()
def segment_features(
    segmenter: Segmenter, features: ImageFeatures, prompts: Mapping[str, str]
) -> dict[str, Segmentation]:
    """Label → what `segmenter.segment(image, prompt, n_draws=0)` gives for the image behind the features.

    prompts: label → prompt, at least one. Raises BadInput and PromptTooLong.
    """
    check_prompts(prompts)
    tokens = segmenter.tokenise(list(prompts.values()))
    image_of = torch.zeros(len(tokens), dtype=torch.int64, device=segmenter.device)
    with segmenter.autocast():
        output = segmenter.network.answer(features.seen, tokens, None, 1, image_of)
    maps = (output.logits.float() / segmenter.temperature).sigmoid()
    patches = F.normalize(output.patches.float(), dim=-1)
    embeddings = F.normalize(torch.einsum("rpe,p->re", patches, features.weights), dim=-1)
    inside = maps[:, *features.place.inside].contiguous()
    return {
        label: segmentation_of(features.place, draw[None], embedding)
        for label, draw, embedding in zip(prompts, inside, embeddings, strict=True)
    }
