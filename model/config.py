"""Frozen settings of the network and of one training run. Pure values: nothing here imports torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from model.errors import BadConfig


def _known(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as keyword arguments, after refusing keys that `cls` does not have."""
    names = [field.name for field in dataclasses.fields(cls)]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise BadConfig(f"{cls.__name__} does not know {', '.join(unknown)}; it knows {', '.join(names)}")
    return dict(values)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise BadConfig(message)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@dataclass(frozen=True)
class ModelConfig:
    """What the network is made of. A field left at None takes the value that suits the backbone.

    adapter_dim is d, the width of the cross-attention; adapter_layers are the transformer blocks (from 0) that get
    an adapter before them; beta weighs the standard deviation of an attention score; temperature is the tau of the
    contrastive loss. The model frame is image_size_px squared.
    """

    backbone: str = "tiny"
    image_size_px: int | None = None
    adapter_dim: int | None = None
    adapter_layers: tuple[int, ...] | None = None
    beta: float = 2.35
    gate_init: float = 0.0
    temperature: float = 0.2

    def __post_init__(self) -> None:
        """Refuse impossible values at once, and make adapter_layers a tuple whatever JSON made of it."""
        _require(isinstance(self.backbone, str) and bool(self.backbone), "backbone must be a name")
        for name in ("image_size_px", "adapter_dim"):
            value = getattr(self, name)
            _require(value is None or _count(value), f"{name} must be a positive integer, not {value!r}")
        if self.adapter_layers is not None:
            layers = tuple(self.adapter_layers)
            in_order = all(isinstance(i, int) and i >= 0 for i in layers) and layers == tuple(sorted(set(layers)))
            _require(in_order, f"adapter_layers must be ascending block numbers from 0, not {layers!r}")
            object.__setattr__(self, "adapter_layers", layers)
        _require(_finite(self.beta) and self.beta >= 0, f"beta must be at least 0, not {self.beta!r}")
        _require(_finite(self.gate_init), f"gate_init must be finite, not {self.gate_init!r}")
        positive = _finite(self.temperature) and self.temperature > 0
        _require(positive, f"temperature must be above 0, not {self.temperature!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        values = dataclasses.asdict(self)
        values["adapter_layers"] = None if self.adapter_layers is None else list(self.adapter_layers)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of to_dict. Raises BadConfig for unknown keys and impossible values."""
        return cls(**_known(cls, values))


@dataclass(frozen=True)
class TrainConfig:
    """How one training run goes. The learning rate follows whichever of steps and time is nearer its end.

    A run limited by steps alone gives the same weights for the same seed on the same machine; one that hits
    time_limit_seconds does not, because how many steps fit is not ours to say.
    """

    seed: int = 0
    max_steps: int = 600
    time_limit_seconds: float | None = 60.0
    batch_size: int = 8
    learning_rate: float = 2e-3
    warmup_share: float = 0.1
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    dice_weight: float = 0.5
    bce_weight: float = 0.5
    contrastive_weight: float = 0.1
    augment: bool = True
    state_interval_seconds: float = 10.0

    def __post_init__(self) -> None:
        """Refuse impossible values at once."""
        _require(isinstance(self.seed, int) and self.seed >= 0, f"seed must be an integer from 0, not {self.seed!r}")
        for name in ("max_steps", "batch_size"):
            value = getattr(self, name)
            _require(_count(value), f"{name} must be a positive integer, not {value!r}")
        for name in ("learning_rate", "max_gradient_norm"):
            value = getattr(self, name)
            _require(_finite(value) and value > 0, f"{name} must be above 0, not {value!r}")
        for name in ("weight_decay", "dice_weight", "bce_weight", "contrastive_weight", "state_interval_seconds"):
            value = getattr(self, name)
            _require(_finite(value) and value >= 0, f"{name} must be at least 0, not {value!r}")
        within = _finite(self.warmup_share) and 0 <= self.warmup_share < 1
        _require(within, f"warmup_share must be in [0, 1), not {self.warmup_share!r}")
        limit = self.time_limit_seconds
        _require(limit is None or (_finite(limit) and limit > 0), f"time_limit_seconds must be above 0, not {limit!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of to_dict. Raises BadConfig for unknown keys and impossible values."""
        return cls(**_known(cls, values))
