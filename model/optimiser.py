"""Adam with decoupled weight decay, and how its learning rate moves over a run."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from model.config import TrainConfig
from model.network import Network

RATE_OF_WHOLE_NETWORKS = 2e-3
RATE_OVER_FROZEN_TOWERS = 3e-4


def learning_rate(config: TrainConfig, network: Network) -> float:
    """The highest learning rate of the run: the one asked for, or what suits the network."""
    if config.learning_rate is not None:
        return config.learning_rate
    return RATE_OVER_FROZEN_TOWERS if network.clip_towers.frozen else RATE_OF_WHOLE_NETWORKS


def adam(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW in which only matrices decay; biases, gates and norms do not. Its rate is set before each step."""
    trained = list(parameters)
    decayed = [p for p in trained if p.ndim > 1]
    plain = [p for p in trained if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0)


def warmup_cosine(progress: float, warmup_share: float, final_share: float) -> float:
    """Share of the full rate at `progress` in [0, 1]: from final_share up in a line, back to it in half a cosine."""
    if progress < warmup_share:
        return final_share + (1 - final_share) * progress / warmup_share
    return cosine(min(1.0, (progress - warmup_share) / (1 - warmup_share)), final_share)


def cosine(progress: float, final_share: float) -> float:
    """From 1 at 0 to final_share at 1."""
    return final_share + (1 - final_share) * (1 + math.cos(math.pi * progress)) / 2
