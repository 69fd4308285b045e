"""Two ways to train MedCLIPSeg: `corrected`, the default everywhere, and `released`, true to the released code.

A recipe is nothing but fields of ModelConfig and TrainConfig; docs/recipes.md goes through them one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from model.config import ModelConfig, TrainConfig
from model.errors import BadConfig


@dataclass(frozen=True)
class Recipe:
    """A name, and the fields of each configuration in which it differs from their defaults."""

    name: str
    model: Mapping[str, Any]
    training: Mapping[str, Any]

    def model_config(self, backbone: str = "unimedclip", **overrides: Any) -> ModelConfig:
        """The model of this recipe, with other values for the fields named. Raises BadConfig."""
        return ModelConfig.from_dict({**self.model, "backbone": backbone, **overrides})

    def train_config(self, **overrides: Any) -> TrainConfig:
        """The training of this recipe, with other values for the fields named. Raises BadConfig."""
        return TrainConfig.from_dict({**self.training, **overrides})


CORRECTED = Recipe("corrected", MappingProxyType({}), MappingProxyType({}))

RELEASED = Recipe(
    "released",
    MappingProxyType({"shrinking": "point", "channels": "bgr", "statistics": "imagenet", "padding": "attended"}),
    MappingProxyType(
        {
            "max_steps": None,
            "epochs": 100,
            "time_limit_seconds": None,
            "batch_size": 24,
            "short_batch": "keep",
            "learning_rate": 3e-4,
            "rate_schedule": "epoch_cosine",
            "final_rate_share": 1 / 3,
            "weight_decay": 0.0,
            "max_gradient_norm": None,
            "dice": "row",
            "augmentation": "rotation",
            "tower_dropout": True,
            "validation_draws": 1,
            "keep": "last",
            "precision": "fp32",
        }
    ),
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in (CORRECTED, RELEASED)})


def get(name: str) -> Recipe:
    """The recipe of that name. Raises BadConfig."""
    if name not in RECIPES:
        raise BadConfig(f"there is no recipe {name!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
