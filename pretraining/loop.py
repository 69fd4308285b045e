"""The loop: ever new scenes, the losses of MedCLIPSeg, and a running mean of the weights, which is what is kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.config import TrainConfig
from model.losses import bce_loss, dice_loss, soft_contrastive_loss
from model.optimiser import adam, warmup_cosine
from model.segmenter import Segmenter
from pretraining.captions import Query
from pretraining.generator import scene

# Each use of chance has a stream of its own, told apart by these numbers behind the seed.
_SCENES, _BATCHES, _NOISE = 0, 1, 2
FINAL_SHARE = 0.02


@dataclass(frozen=True)
class Plan:
    """How long and how to learn. Of a row of scenes the latest `reservoir` are kept; every step adds `fresh` new ones.

    mean_decay: how much of the running mean of the weights outlives a step.
    """

    steps: int = 8000
    batch_size: int = 16
    fresh: int = 4
    reservoir: int = 4096
    learning_rate: float = 1.5e-3
    warmup_share: float = 0.03
    mean_decay: float = 0.998
    seed: int = 0

    @property
    def n_scenes(self) -> int:
        """How many scenes a whole run draws."""
        return self.batch_size + self.fresh * self.steps


class Reservoir:
    """The latest scenes of the row, and batches drawn from them."""

    def __init__(self, plan: Plan, size: int) -> None:
        self._plan, self._size, self._next = plan, size, 0
        self._kept: list[tuple[NDArray[np.uint8], list[Query]]] = []
        self._add(plan.batch_size)

    def _add(self, n: int) -> None:
        for position in range(self._next, self._next + n):
            made, asked = scene(self._plan.seed, position, self._size)
            entry = (made.image, asked)
            if len(self._kept) < self._plan.reservoir:
                self._kept.append(entry)
            else:
                self._kept[position % self._plan.reservoir] = entry
        self._next += n

    def batch(self, step: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[str]]:
        """Images (B, S, S, 3), masks (B, S, S) and prompts of one step; half of them from the newest scenes."""
        self._add(self._plan.fresh)
        rng = np.random.default_rng([self._plan.seed, _BATCHES, step])
        newest = np.arange(self._next - self._plan.fresh, self._next) % self._plan.reservoir
        older = rng.integers(len(self._kept), size=self._plan.batch_size - len(newest))
        entries = [self._kept[i] for i in np.concatenate([newest, older])]
        asked = [queries[rng.integers(len(queries))] for _, queries in entries]
        images = np.stack([image for image, _ in entries])
        return images, np.stack([query.mask for query in asked]), [query.prompt for query in asked]


def pretrain(start: Segmenter, plan: Plan) -> Iterator[tuple[int, float, Callable[[], Segmenter]]]:
    """Teach a copy of `start`; after every step yields its number (from 1), its loss and how to get the mean weights.

    The same start and plan give the same weights on the same machine.
    """
    segmenter = Segmenter(start.config, copy.deepcopy(start.network), start.device)
    mean = copy.deepcopy(segmenter.network)
    reservoir = Reservoir(plan, segmenter.size_px)
    trained = [p for p in segmenter.network.parameters() if p.requires_grad]
    settings = TrainConfig(seed=plan.seed, learning_rate=plan.learning_rate)
    optimiser = adam(trained, settings)
    segmenter.network.train()
    for step in range(1, plan.steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = plan.learning_rate * warmup_cosine((step - 1) / plan.steps, plan.warmup_share, FINAL_SHARE)
        loss = _loss(segmenter, settings, *reservoir.batch(step), _generator(plan.seed, step))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, settings.max_gradient_norm or 1.0)
        optimiser.step()
        _follow(mean, segmenter.network, min(plan.mean_decay, 1 - 1 / step))
        yield step, loss.item(), lambda: Segmenter(start.config, copy.deepcopy(mean), start.device)


def _loss(
    segmenter: Segmenter,
    settings: TrainConfig,
    images: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    prompts: list[str],
    chance: torch.Generator,
) -> Tensor:
    pixels = segmenter.normalise(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    targets = torch.from_numpy(masks)[:, None].float().to(segmenter.device)

    def noise(rows: int, width: int) -> Tensor:
        return torch.randn(len(images), rows, width, generator=chance).to(segmenter.device)

    output = segmenter.network(pixels, segmenter.tokenise(prompts), noise)
    logits = output.logits[:, None]
    contrast = soft_contrastive_loss(output.patches, output.text, segmenter.config.temperature)
    masked = settings.dice_weight * dice_loss(logits, targets) + settings.bce_weight * bce_loss(logits, targets)
    return masked + settings.contrastive_weight * contrast


def _generator(seed: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.default_rng([seed, _NOISE, step]).integers(2**63)))


@torch.no_grad()
def _follow(mean: nn.Module, network: nn.Module, decay: float) -> None:
    for ours, theirs in zip(mean.parameters(), network.parameters(), strict=True):
        ours.lerp_(theirs, 1 - decay)
