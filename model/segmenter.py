"""The face for inference: image and prompt in, Segmentation out. The only place that converts between frames.

Model frame: S × S pixels, into which every image is squashed whatever its shape. Image frame: the H × W pixels of the
image itself. Both resizings align pixel corners to pixel corners, so one undoes the geometry of the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from model import backbones, checkpoints
from model.config import ModelConfig
from model.errors import BadConfig, BadInput, CheckpointMismatch, UnknownBackbone
from model.network import Network, Noise

ROWS_PER_PASS = 32
"""How many image-and-draw rows go through the network at once; bounds memory, changes no result."""


@dataclass(frozen=True)
class Segmentation:
    """The answer for one image and prompt.

    probability: (H, W) float32 in [0, 1], image frame, mean over draws; draws: (N, h, w) float32 in [0, 1], model
    frame; embedding: (D,) float32, L2-normalised, the mean patch feature of the image.
    """

    probability: NDArray[np.float32]
    draws: NDArray[np.float32]
    embedding: NDArray[np.float32]


def to_model_frame(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """An image (H, W), (H, W, 1) or (H, W, 3) uint8 → (size, size, 3) uint8. Raises BadInput for anything else."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise BadInput(f"an image must be a uint8 array, not {getattr(image, 'dtype', type(image).__name__)}")
    grey = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    if not grey and not (image.ndim == 3 and image.shape[2] == 3):
        raise BadInput(f"an image must be (H, W) or (H, W, 3), not {image.shape}")
    if 0 in image.shape:
        raise BadInput(f"an image must have at least one pixel, but its shape is {image.shape}")
    whole = Image.fromarray(image.reshape(image.shape[:2]) if grey else image).convert("RGB")
    return np.array(whole.resize((size, size), Image.Resampling.BILINEAR))


class Segmenter:
    """A network ready to answer. Its weights never change: `fine_tune` returns another Segmenter."""

    def __init__(self, config: ModelConfig, network: Network, device: str | torch.device = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()

    @classmethod
    def create(cls, config: ModelConfig, seed: int = 0, device: str | torch.device = "cpu") -> Self:
        """A new segmenter: towers as the backbone makes them, everything else at random from the seed.

        Raises UnknownBackbone and BadConfig. `config` of the result has every open field filled in.
        """
        backbone = backbones.get(config.backbone)
        complete = backbone.complete(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Network(complete, backbone)
        return cls(complete, network, device)

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Self:
        """A segmenter from a file written by `save`. Raises CheckpointUnreadable and CheckpointMismatch."""
        tensors, content = checkpoints.read(path, checkpoints.CHECKPOINT_FORMAT)
        try:
            segmenter = cls.create(ModelConfig.from_dict(content["config"]), device=device)
        except (BadConfig, UnknownBackbone, KeyError, TypeError) as error:
            raise CheckpointMismatch(f"{path} holds a configuration this version does not know: {error}") from error
        checkpoints.load_into(segmenter.network, tensors, path)
        return segmenter

    def save(self, path: Path, card: Mapping[str, Any]) -> None:
        """Write weights, configuration and a JSON-able card into one safetensors file, atomically."""
        content = {"config": self.config.to_dict(), "card": dict(card)}
        checkpoints.write(path, self.network.state_dict(), content, checkpoints.CHECKPOINT_FORMAT)

    @property
    def size_px(self) -> int:
        """Side of the model frame."""
        return cast(int, self.config.image_size_px)

    def segment(self, image: NDArray[np.uint8], prompt: str, n_draws: int = 8, seed: int = 0) -> Segmentation:
        """Segment what the prompt names in a uint8 image (H, W) or (H, W, 3) of any size.

        n_draws = 0 takes the deterministic mean path, and `draws` is that one map. Draw k depends on the seed and k
        alone: more draws extend the fewer. Raises BadInput.
        """
        return self.segment_many([image], [prompt], n_draws, seed)[0]

    def segment_many(
        self, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str], n_draws: int = 8, seed: int = 0
    ) -> list[Segmentation]:
        """Segment many images; each answer is what `segment` gives for it alone, up to rounding.

        All images see the same noise, so their scores differ by what they show and not by luck. Raises BadInput.
        """
        _check_request(images, prompts, n_draws)
        squashed = [to_model_frame(image, self.size_px) for image in images]
        per_pass = max(1, ROWS_PER_PASS // max(1, n_draws))
        answers: list[Segmentation] = []
        for start in range(0, len(images), per_pass):
            part = slice(start, start + per_pass)
            draws, embeddings = self._draw(np.stack(squashed[part]), prompts[part], n_draws, seed)
            answers += [
                Segmentation(_to_image_frame(draws[:, b].mean(0), image.shape[:2]), draws[:, b].numpy(), embedding)
                for b, (image, embedding) in enumerate(zip(images[part], embeddings.numpy(), strict=True))
            ]
        return answers

    @torch.inference_mode()
    def _draw(
        self, images: NDArray[np.uint8], prompts: Sequence[str], n_draws: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Squashed images (B, S, S, 3) → probabilities (N, B, S, S) and embeddings (B, E), both on the CPU."""
        n_maps = max(1, n_draws)
        noise = shared_noise(seed, n_draws, len(images), self.device) if n_draws else None
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        output = self.network(self.normalise(pixels), self.tokenise(prompts), noise, n_maps)
        draws = output.logits.sigmoid().view(n_maps, len(images), self.size_px, self.size_px)
        features = F.normalize(output.patches, dim=-1).mean(1).view(n_maps, len(images), -1)
        return draws.cpu(), F.normalize(features.mean(0), dim=-1).cpu()

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) in [0, 1] → the same on the device, centred and scaled as the towers want them."""
        towers = self.network.clip_towers
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (towers.mean, towers.std))
        return (pixels.to(self.device) - mean) / std

    def tokenise(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (B, L) int64 on the device."""
        return self.network.clip_towers.tokenize(prompts).to(self.device)


def shared_noise(seed: int, n_draws: int, n_images: int, device: torch.device) -> Noise:
    """Noise for n_draws · n_images rows in which every image sees the same numbers, other ones in each draw.

    Drawn on the CPU, so that every device sees the same as well.
    """
    generators = [torch.Generator().manual_seed(_mix(seed, k)) for k in range(n_draws)]

    def noise(rows: int, width: int) -> Tensor:
        drawn = torch.stack([torch.randn(rows, width, generator=generator) for generator in generators])
        return drawn.to(device).repeat_interleave(n_images, 0)

    return noise


def _mix(seed: int, k: int) -> int:
    """One 63-bit seed out of two numbers, so that neighbouring seeds share no draw."""
    low, high = np.random.SeedSequence([seed, k]).generate_state(2, np.uint32)
    return (int(high) << 32 | int(low)) >> 1


def _check_request(images: Sequence[object], prompts: Sequence[str], n_draws: int) -> None:
    if len(images) != len(prompts):
        raise BadInput(f"{len(images)} images came with {len(prompts)} prompts; give one prompt per image")
    if not isinstance(n_draws, int) or n_draws < 0:
        raise BadInput(f"n_draws must be an integer from 0, not {n_draws!r}")
    if not all(isinstance(prompt, str) and prompt.strip() for prompt in prompts):
        raise BadInput("a prompt must be a text that is not blank")


def _to_image_frame(probability: Tensor, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A map (S, S) stretched to the image's own (H, W)."""
    resized = F.interpolate(probability[None, None], shape, mode="bilinear", align_corners=False)
    return cast("NDArray[np.float32]", resized[0, 0].clamp(0, 1).numpy())


def clone(segmenter: Segmenter) -> Segmenter:
    """A segmenter with its own copy of the weights."""
    copy = Segmenter.create(dataclasses.replace(segmenter.config), device=segmenter.device)
    copy.network.load_state_dict(segmenter.network.state_dict())
    return copy
