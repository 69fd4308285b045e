"""From what was asked for to a Setup: the recipe, the length of a training, and a label that tells runs apart."""

import argparse
from pathlib import Path
from typing import Any

import model
from protocols import published
from protocols.runs import Setup, Training

RECIPES = ("corrected", "released")
N_DRAWS = 30
"""As published."""

EPOCHS = 100
# Where the published configurations of single data sets differ from the rest.
EPOCHS_OF = {"EUS": 10}
RELEASED_GATE_OF = {"Covid19": -0.02}


def for_training(options: argparse.Namespace, device: object) -> Training:
    """What `data-efficiency` and `out-of-distribution` were asked for. `device` counts where none was named."""
    from model import recipes

    recipe = recipes.get(options.recipe)

    def model_config(name: str) -> model.ModelConfig:
        changed = {}
        if options.recipe == "released" and published.canonical(name) in RELEASED_GATE_OF:
            changed["gate_init"] = RELEASED_GATE_OF[published.canonical(name)]
        return recipe.model_config(backbone=options.backbone, **changed)

    def train_config(name: str, seed: int) -> model.TrainConfig:
        return recipe.train_config(seed=seed, **length(options, name))

    return Training(_setup(options, _label(options), device), model_config, train_config)


def for_checkpoint(options: argparse.Namespace, device: object) -> Setup:
    """What `evaluate` was asked for."""
    return _setup(options, ", ".join([options.checkpoint.name, *_draws(options)]), device)


def _setup(options: argparse.Namespace, label: str, device: object) -> Setup:
    return Setup(
        label=label,
        weights=getattr(options, "weights", None),
        tokenizer=getattr(options, "tokenizer", None),
        n_draws=options.n_draws,
        device=getattr(options, "device", str(device)),
    )


def length(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Fields of TrainConfig that say how long to train on the data set of that name."""
    steps = getattr(options, "steps", None)
    epochs = getattr(options, "epochs", EPOCHS_OF.get(published.canonical(name), EPOCHS))
    limit = getattr(options, "time_limit", None)
    return {"max_steps": steps, "epochs": None if steps is not None else epochs, "time_limit_seconds": limit}


def _label(options: argparse.Namespace) -> str:
    """Whatever makes two models different and is no column of a table.

    The device is left out: it moves results by rounding alone.
    """
    named = vars(options)
    words = [options.backbone, options.recipe]
    words += [f"{what} {_name(named[what])}" for what in ("weights", "tokenizer") if what in named]
    words += [f"{named[what]} {what}" for what in ("epochs", "steps") if what in named]
    words += [f"at most {named['time_limit']:g} s"] if "time_limit" in named else []
    return ", ".join(words + _draws(options))


def _draws(options: argparse.Namespace) -> list[str]:
    return [] if options.n_draws == N_DRAWS else [f"{options.n_draws} draws"]


def _name(source: str) -> str:
    """A hub id as it is, a file by its name."""
    return Path(source).name if Path(source).exists() else source
