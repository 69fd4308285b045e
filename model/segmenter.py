"""The face for inference: images and prompts in, Segmentations out. Owns chance, batches and precision.

Uncertainty is computed in the model frame, so that images of different resolution compare; masks are shown in the
image frame. `frames` knows how the two hang together.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model import backbones, checkpoints, frames
from model.backbones import RANDOM, Source
from model.config import ModelConfig
from model.errors import BadConfig, BadInput, CheckpointMismatch, UnknownBackbone
from model.frames import Pixels, Placement
from model.network import Network
from model.noise import SharedNoise
from model.segmentation import Segmentation

NO_SOURCE = Source()
"""Every backbone from where it is published."""

ROWS_PER_PASS = 32
"""How many rows (image, prompt and draw) go through the network at once by default: bounds memory, changes no result.
A large GPU wants more."""

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of red, green and blue over ImageNet."""

PRECISIONS = ("fp32", "bf16")

Picture = tuple[Pixels, Sequence[str]]
"""An image and its prompts."""


_Answer = tuple[Placement, Tensor, Tensor]


class Segmenter:
    """A network ready to answer. Its weights never change: `fine_tune` returns another Segmenter.

    precision: "fp32", or "bf16" for networks that run in bfloat16 where torch deems it safe; answers are float32 in
    any case. rows_per_pass: see ROWS_PER_PASS. Both may be set at any time.
    """

    def __init__(
        self,
        config: ModelConfig,
        network: Network,
        device: str | torch.device = "cpu",
        temperature: float = 1.0,
        precision: str = "fp32",
        rows_per_pass: int = ROWS_PER_PASS,
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.temperature = temperature
        self.precision = precision
        self.rows_per_pass = rows_per_pass

    @classmethod
    def create(
        cls, config: ModelConfig, seed: int = 0, device: str | torch.device = "cpu", source: Source = NO_SOURCE
    ) -> Self:
        """A new segmenter: weights of the backbone from `source`, everything else at random from the seed.

        `tiny` brings weights for the whole network, when the configuration leaves its shape as it is. Raises
        UnknownBackbone, BadConfig, BackboneUnavailable, CheckpointUnreadable and CheckpointMismatch. `config` of the
        result has every open field filled in.
        """
        backbone = backbones.get(config.backbone)
        complete = backbone.complete(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Network(complete, backbone, source)
        packaged = None if source.weights == RANDOM else backbone.whole_network(complete)
        if packaged is not None:
            checkpoints.load_into(network, packaged, f"the packaged weights of {backbone.name}")
        return cls(complete, network, device)

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu", source: Source = NO_SOURCE) -> Self:
        """A segmenter from a file written by `save`; frozen towers come from `source`, as in `create`.

        Raises CheckpointUnreadable, CheckpointMismatch (also where the towers are others than it was trained over)
        and BackboneUnavailable.
        """
        tensors, content = checkpoints.read(path, checkpoints.CHECKPOINT_FORMAT)
        try:
            config = ModelConfig.from_dict(content["config"])
            backbone = backbones.get(config.backbone)
            complete = backbone.complete(config)
            temperature = float(content["temperature"])
        except (BadConfig, UnknownBackbone, KeyError, TypeError, ValueError) as error:
            raise CheckpointMismatch(f"{path} holds a configuration this version does not know: {error}") from error
        network = Network(complete, backbone, source)
        checkpoints.load_into(network, tensors, path)
        _demand_towers(network, content.get("towers"), path)
        return cls(complete, network, device, temperature)

    def save(self, path: Path, card: Mapping[str, Any]) -> None:
        """Write what was trained, the configuration and a JSON-able card into one safetensors file, atomically.

        Of frozen towers only a digest is kept, by which `load` knows them again.
        """
        content = {"config": self.config.to_dict(), "temperature": self.temperature, "card": dict(card)}
        content["towers"] = towers_digest(self.network)
        checkpoints.write(path, self.network.own_parts(), content, checkpoints.CHECKPOINT_FORMAT)

    def with_temperature(self, temperature: float) -> Segmenter:
        """The same network, with the logits of every draw divided by `temperature` before they become probabilities."""
        if not (math.isfinite(temperature) and temperature > 0):
            raise BadConfig(f"a temperature must be above 0, not {temperature!r}")
        return type(self)(self.config, self.network, self.device, temperature, self.precision, self.rows_per_pass)

    @property
    def size_px(self) -> int:
        """Side of the model frame."""
        return cast(int, self.config.image_size_px)

    def segment(self, image: Pixels, prompt: str, n_draws: int = 8, seed: int = 0) -> Segmentation:
        """Segment what the prompt names in an image of any size, 8 or 16 bits, grey or RGB (`frames.to_model_frame`).

        n_draws = 0 takes the deterministic mean path, and `draws` is that one map. Draw k depends on the seed and k
        alone: more draws extend the fewer. Raises BadInput and PromptTooLong.
        """
        return self.segment_many([image], [prompt], n_draws, seed)[0]

    def segment_many(
        self, images: Sequence[Pixels], prompts: Sequence[str], n_draws: int = 8, seed: int = 0
    ) -> list[Segmentation]:
        """Segment many images, one prompt each; each answer is what `segment` gives for it alone, up to rounding.

        All images see the same noise, so their scores differ by what they show and not by luck. Raises BadInput and
        PromptTooLong.
        """
        if len(images) != len(prompts):
            raise BadInput(f"{len(images)} images came with {len(prompts)} prompts; give one prompt per image")
        named = [{f"image {i}": prompt} for i, prompt in enumerate(prompts)]
        return [answer for found in self.segment_labels(images, named, n_draws, seed) for answer in found.values()]

    def segment_labels(
        self,
        images: Sequence[Pixels],
        prompts: Mapping[str, str] | Sequence[Mapping[str, str]],
        n_draws: int = 8,
        seed: int = 0,
    ) -> list[dict[str, Segmentation]]:
        """Segment several labels in every image, whose own part of the work is done once for all of them.

        prompts: label → prompt, the same for all images or one such mapping an image. Each answer is what `segment`
        gives for that image and prompt alone, up to rounding. Raises BadInput and PromptTooLong.
        """
        asked = [prompts] * len(images) if isinstance(prompts, Mapping) else list(prompts)
        if len(images) != len(asked):
            raise BadInput(f"{len(images)} images came with prompts for {len(asked)}; give one mapping per image")
        for image, labels in zip(images, asked, strict=True):
            _check_picture(image, labels)
        pictures = ((image, list(labels.values())) for image, labels in zip(images, asked, strict=True))
        found = self._answers(pictures, _draws(n_draws), seed)
        return [
            {label: segmentation_of(*answer) for label, answer in zip(labels, answers, strict=True)}
            for labels, answers in zip(asked, found, strict=True)
        ]

    def draw(
        self, pictures: Iterable[Picture], n_draws: int, seed: int = 0, first_draw: int = 0
    ) -> Iterator[NDArray[np.float32]]:
        """Only the draws, from number first_draw on, of images that need not be in memory together.

        pictures: images, each with P >= 1 prompts; they are fetched a few at a time. Yields (n_draws, P, h, w) float32
        in [0, 1] per picture, model frame without padding: what `segment` gives as draws, or goes on with. Raises
        BadInput and PromptTooLong.
        """
        for answers in self._answers(_checked(pictures), _draws(n_draws, first_draw), seed):
            yield torch.stack([draws for _, draws, _ in answers], 1).cpu().numpy()

    def _answers(self, pictures: Iterable[Picture], draws: range, seed: int) -> Iterator[list[_Answer]]:
        """For each picture, for each prompt: placement, draws (N, h, w) and embedding (E,). No draws: the mean path."""
        noise = SharedNoise(seed, self.device)
        for group in _groups(pictures, max(1, self.rows_per_pass // max(1, len(draws)))):
            maps, embeddings = self._run(group, draws, noise)
            rows = zip(maps.unbind(1), embeddings, strict=True)
            for image, prompts in group:
                place = Placement.of(image.shape, self.config)
                answers = itertools.islice(rows, len(prompts))
                yield [(place, whole[:, *place.inside].contiguous(), embedding) for whole, embedding in answers]

    @torch.inference_mode()
    def _run(self, group: Sequence[Picture], draws: range, noise: SharedNoise) -> tuple[Tensor, Tensor]:
        """All R prompts of a few pictures: draws (N, R, S, S) and embeddings (R, E), on the device."""
        images = [image for image, _ in group]
        pixels = self.pixels(images)
        tokens = self.tokenise([prompt for _, prompts in group for prompt in prompts])
        image_of = torch.tensor([i for i, (_, prompts) in enumerate(group) for _ in prompts], device=self.device)
        weights = self.patch_weights(images)[image_of]
        maps, embedding = [], torch.zeros((), device=self.device)
        for part in _parts(draws, self.rows_per_pass // len(tokens)):
            n_maps = max(1, len(part))
            with self.autocast():
                played = noise.of(part, len(tokens)) if part else None
                output = self.network(pixels, tokens, played, n_maps, image_of)
            maps.append(
                (output.logits.float() / self.temperature).sigmoid().view(n_maps, len(tokens), *pixels.shape[2:])
            )
            features = F.normalize(output.patches.float(), dim=-1).view(n_maps, *weights.shape, -1)
            embedding = embedding + torch.einsum("nrpe,rp->re", features, weights)
        return torch.cat(maps), F.normalize(embedding, dim=-1)

    def autocast(self) -> torch.autocast:
        """Within it the network runs in this segmenter's precision. Raises BadConfig."""
        if self.precision not in PRECISIONS:
            raise BadConfig(f"precision must be {' or '.join(PRECISIONS)}, not {self.precision!r}")
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def pixels(self, images: Sequence[Pixels]) -> Tensor:
        """Images → what the towers take (B, 3, S, S)."""
        shares = [frames.as_shares(frames.to_model_frame(image, self.config)) for image in images]
        return self.normalise(torch.from_numpy(np.stack(shares)).permute(0, 3, 1, 2))

    def patch_weights(self, images: Sequence[Pixels]) -> Tensor:
        """How much of its patches each image covers: (B, patches), each row adding up to 1."""
        covered = np.stack([Placement.of(image.shape, self.config).covered() for image in images])
        grid = self.network.clip_towers.grid
        shares = F.avg_pool2d(torch.from_numpy(covered).float(), self.size_px // grid).flatten(1).to(self.device)
        return shares / shares.sum(1, keepdim=True)

    def normalise(self, pixels: Tensor) -> Tensor:
        """RGB pixels (B, 3, S, S) in [0, 1] → the same on the device, ordered, centred and scaled as the towers want.

        Mean and standard deviation meet the channels in the order the towers see them: the released code puts those
        of red to the blue of its BGR pictures, and so does "bgr" here.
        """
        towers = self.network.clip_towers
        ordered = pixels.flip(1) if self.config.channels == "bgr" else pixels
        statistics = IMAGENET if self.config.statistics == "imagenet" else (towers.mean, towers.std)
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in statistics)
        return (ordered.to(self.device) - mean) / std

    def tokenise(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (B, L) int64 on the device; L is the longest of these prompts where padding is masked.

        Raises PromptTooLong, naming the prompt.
        """
        tokens = self.network.clip_towers.tokenize(prompts)
        if self.config.padding == "masked":
            tokens = tokens[:, : int((tokens != 0).sum(1).max())]
        return tokens.to(self.device)


def segmentation_of(place: Placement, draws: Tensor, embedding: Tensor) -> Segmentation:
    """From draws (N, h, w) over the rectangle of `place` and an embedding (E,), on any device."""
    probability = frames.to_image_frame(draws.mean(0), place)
    return Segmentation(probability.cpu().numpy(), draws.cpu().numpy(), embedding.cpu().numpy())


def _groups(pictures: Iterable[Picture], n_prompts: int) -> Iterator[list[Picture]]:
    """Neighbours that together have at most n_prompts, or a single picture that alone has more."""
    group: list[Picture] = []
    for picture in pictures:
        if group and sum(len(prompts) for _, prompts in [*group, picture]) > n_prompts:
            yield group
            group = []
        group.append(picture)
    if group:
        yield group


def _parts(draws: range, size: int) -> list[range]:
    """The draws, `size` at a time; of none, one empty part."""
    step = max(1, size)
    return [draws[start : start + step] for start in range(0, max(1, len(draws)), step)]


def _draws(n_draws: object, first_draw: object = 0) -> range:
    """Numbers of the draws asked for. Raises BadInput."""
    for name, value in (("n_draws", n_draws), ("first_draw", first_draw)):
        if not isinstance(value, int) or value < 0:
            raise BadInput(f"{name} must be an integer from 0, not {value!r}")
    first, n = cast(int, first_draw), cast(int, n_draws)
    return range(first, first + n)


def _checked(pictures: Iterable[Picture]) -> Iterator[Picture]:
    for image, prompts in pictures:
        _check_picture(image, {f"number {i}": prompt for i, prompt in enumerate(prompts)})
        yield image, prompts


def _check_picture(image: object, prompts: Mapping[str, str]) -> None:
    """Raises BadInput, naming the prompt."""
    frames.check_image(image)
    check_prompts(prompts)


def check_prompts(prompts: Mapping[str, str]) -> None:
    """Raises BadInput, naming the prompt."""
    if not prompts:
        raise BadInput("an image came without any prompt; give at least one")
    for label, prompt in prompts.items():
        if not isinstance(prompt, str) or not prompt.strip():
            raise BadInput(f"the prompt of {label} is blank ({prompt!r}); say in words what to segment")


def towers_digest(network: Network) -> str | None:
    """A fingerprint of frozen towers; None where the towers are trained and so part of the checkpoint."""
    if not network.clip_towers.frozen:
        return None
    return checkpoints.digest(network.towers.state_dict())


def _demand_towers(network: Network, expected: object, path: Path) -> None:
    found = towers_digest(network)
    if found != expected:
        raise CheckpointMismatch(
            f"{path} was trained over other weights of {network.config.backbone} (digest {str(expected)[:12]}, these "
            f"have {str(found)[:12]}); give the weights it was trained over"
        )


def clone(segmenter: Segmenter) -> Segmenter:
    """A segmenter with its own copy of the weights that training changes; frozen towers are shared."""
    towers = segmenter.network.towers
    shared = {id(towers): towers} if segmenter.network.clip_towers.frozen else {}
    network = copy.deepcopy(segmenter.network, shared)
    return Segmenter(
        segmenter.config,
        network,
        segmenter.device,
        precision=segmenter.precision,
        rows_per_pass=segmenter.rows_per_pass,
    )
