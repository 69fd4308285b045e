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


_CHOICES = {
    "fit": ("squash", "letterbox"),
    "shrinking": ("average", "point"),
    "channels": ("rgb", "bgr"),
    "statistics": ("backbone", "imagenet"),
    "padding": ("masked", "attended"),
}


@dataclass(frozen=True)
class ModelConfig:
    """What the network is made of. A field left at None takes the value that suits the backbone.

    adapter_dim is d, the width of the cross-attention; adapter_layers are the transformer blocks (from 0) that get
    an adapter before them; beta weighs the standard deviation of an attention score; temperature is the tau of the
    contrastive loss. The model frame is image_size_px squared.

    The rest says how a picture and its prompt reach the towers. fit: "squash" the picture into the square, or
    "letterbox" it with its shape kept; shrinking: "average" the pixels that become one, or "point": take single ones
    as OpenCV does; channels: in which order the towers see them; statistics: with whose mean and standard deviation
    they are normalised; padding: that of a prompt is "masked", or "attended" to as if it were words.
    """

    backbone: str = "tiny"
    image_size_px: int | None = None
    fit: str = "squash"
    shrinking: str = "average"
    channels: str = "rgb"
    statistics: str = "backbone"
    padding: str = "masked"
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
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            _require(value in choices, f"{name} must be {' or '.join(choices)}, not {value!r}")
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


_TRAIN_CHOICES = {
    "short_batch": ("fill", "keep"),
    "rate_schedule": ("warmup_cosine", "epoch_cosine"),
    "dice": ("image", "row"),
    "augmentation": ("full", "rotation", "none"),
    "keep": ("best", "last"),
    "precision": ("auto", "fp32", "bf16"),
}


@dataclass(frozen=True)
class TrainConfig:
    """How one training run goes; the defaults are the `corrected` recipe (`model.recipes`, docs/recipes.md).

    Length: the run ends with max_steps, epochs or time_limit_seconds, whichever comes first; a None sets no limit,
    but steps or epochs must. A run that hits the time limit does not repeat to the bit: how many steps fit is not
    ours to say.

    Batches: batch_size images make one step; short_batch says whether the last batch of an epoch is "fill"ed up from
    the front of the same epoch, or the remainder is "keep"t as it is. micro_batch_size is how many go through the
    network at once (None: all); it saves memory and changes the result by rounding alone.

    Optimiser: Adam with decoupled weight_decay (0 makes it plain Adam), gradients cut to max_gradient_norm (None:
    never). learning_rate None takes what suits the backbone: 2e-3 where the whole network is trained, 3e-4 over
    frozen towers. rate_schedule: up over warmup_share of the run and down in half a cosine at every step, or such a
    cosine by whole epochs; either ends at final_rate_share of the learning rate.

    Loss: dice per "image", or per "row" of pixels but the first as the released code has it; weights of the terms.

    Chance: augmentation "full" (flips, rotation, scale, shift, light), "rotation" or "none"; tower_dropout leaves the
    dropout inside frozen towers on.

    Validation: validation_share of the groups (patients, videos) is kept out of training to choose the weights of
    the best step, if that makes at least validation_min_images; validation_draws 0 judges the mean path. keep: the
    "best" weights, or the "last". patience: end after so many validations without a better one (None: never).

    precision: "fp32"; "bf16" autocast with weights and losses in fp32; "auto": bf16 on a GPU that has it.
    """

    seed: int = 0
    max_steps: int | None = 600
    epochs: int | None = None
    time_limit_seconds: float | None = 60.0
    batch_size: int = 8
    short_batch: str = "fill"
    micro_batch_size: int | None = None
    learning_rate: float | None = None
    rate_schedule: str = "warmup_cosine"
    warmup_share: float = 0.1
    final_rate_share: float = 0.01
    weight_decay: float = 0.01
    max_gradient_norm: float | None = 1.0
    dice: str = "image"
    dice_weight: float = 0.5
    bce_weight: float = 0.5
    contrastive_weight: float = 0.1
    augmentation: str = "full"
    tower_dropout: bool = False
    validation_share: float = 0.2
    validation_min_images: int = 50
    validation_draws: int = 0
    keep: str = "best"
    patience: int | None = None
    precision: str = "auto"
    state_interval_seconds: float = 10.0

    def __post_init__(self) -> None:
        """Refuse impossible values at once."""
        for name in ("seed", "validation_draws"):
            value = getattr(self, name)
            _require(_count(value) or value == 0, f"{name} must be an integer from 0, not {value!r}")
        for name in ("batch_size", "validation_min_images"):
            value = getattr(self, name)
            _require(_count(value), f"{name} must be a positive integer, not {value!r}")
        for name in ("max_steps", "epochs", "micro_batch_size", "patience"):
            value = getattr(self, name)
            _require(value is None or _count(value), f"{name} must be a positive integer or None, not {value!r}")
        limited = self.max_steps is not None or self.epochs is not None
        _require(limited, "max_steps and epochs are both None; say how long to train with one of them")
        for name in ("learning_rate", "max_gradient_norm", "time_limit_seconds"):
            value = getattr(self, name)
            positive = _finite(value) and value > 0
            _require(value is None or positive, f"{name} must be above 0 or None, not {value!r}")
        for name in ("weight_decay", "dice_weight", "bce_weight", "contrastive_weight", "state_interval_seconds"):
            value = getattr(self, name)
            _require(_finite(value) and value >= 0, f"{name} must be at least 0, not {value!r}")
        for name in ("warmup_share", "validation_share"):
            value = getattr(self, name)
            _require(_finite(value) and 0 <= value < 1, f"{name} must be in [0, 1), not {value!r}")
        share = self.final_rate_share
        _require(_finite(share) and 0 <= share <= 1, f"final_rate_share must be in [0, 1], not {share!r}")
        for name, choices in _TRAIN_CHOICES.items():
            value = getattr(self, name)
            _require(value in choices, f"{name} must be {' or '.join(choices)}, not {value!r}")
        _require(
            isinstance(self.tower_dropout, bool), f"tower_dropout must be true or false, not {self.tower_dropout!r}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of to_dict. Raises BadConfig for unknown keys and impossible values."""
        return cls(**_known(cls, values))
