"""MedCLIPSeg as a library: arrays in, arrays out. The names below are its whole face.

Importing this package imports neither torch nor open_clip: each name is fetched when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.config import ModelConfig, TrainConfig
    from model.data import Example, read_image, read_mask
    from model.errors import (
        BadConfig,
        BadExample,
        BadInput,
        CheckpointMismatch,
        CheckpointUnreadable,
        ImageTooLarge,
        ModelError,
        NoExamples,
        ResumeMismatch,
        TrainingDiverged,
        UnknownBackbone,
        UnreadableImage,
    )
    from model.evaluation import Metrics, evaluate
    from model.segmenter import Segmentation, Segmenter
    from model.training import Progress, fine_tune

__all__ = [
    "BadConfig",
    "BadExample",
    "BadInput",
    "CheckpointMismatch",
    "CheckpointUnreadable",
    "Example",
    "ImageTooLarge",
    "Metrics",
    "ModelConfig",
    "ModelError",
    "NoExamples",
    "Progress",
    "ResumeMismatch",
    "Segmentation",
    "Segmenter",
    "TrainConfig",
    "TrainingDiverged",
    "UnknownBackbone",
    "UnreadableImage",
    "evaluate",
    "fine_tune",
    "read_image",
    "read_mask",
]

_HOMES = {
    "ModelConfig": "config",
    "TrainConfig": "config",
    "Example": "data",
    "read_image": "data",
    "read_mask": "data",
    "Metrics": "evaluation",
    "evaluate": "evaluation",
    "Segmentation": "segmenter",
    "Segmenter": "segmenter",
    "Progress": "training",
    "fine_tune": "training",
}


def __getattr__(name: str) -> Any:
    """Fetch a public name from its module on first use, so that importing the room costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
