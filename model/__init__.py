"""MedCLIPSeg as a library: arrays in, arrays out. The names below are its whole face.

Importing this package imports neither torch nor open_clip: each name is fetched when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.adaptive import DrawPlan, Ranking, rank_adaptively, rank_pool
    from model.backbones.towers import Source
    from model.calibration import calibrate, fit_temperature
    from model.config import ModelConfig, TrainConfig
    from model.data import Example, has_several_pages, read_image, read_mask
    from model.errors import (
        BackboneUnavailable,
        BadConfig,
        BadExample,
        BadInput,
        CheckpointMismatch,
        CheckpointUnreadable,
        ImageTooLarge,
        ModelError,
        NoExamples,
        NonFiniteWeights,
        OutOfMemory,
        PromptTooLong,
        ResumeMismatch,
        TrainingDiverged,
        UnknownBackbone,
        UnreadableImage,
    )
    from model.evaluation import Metrics, evaluate
    from model.features import ImageFeatures, encode, segment_features
    from model.segmentation import Segmentation
    from model.segmenter import Segmenter
    from model.training import Progress, fine_tune

__all__ = [
    "BackboneUnavailable",
    "BadConfig",
    "BadExample",
    "BadInput",
    "CheckpointMismatch",
    "CheckpointUnreadable",
    "DrawPlan",
    "Example",
    "ImageFeatures",
    "ImageTooLarge",
    "Metrics",
    "ModelConfig",
    "ModelError",
    "NoExamples",
    "NonFiniteWeights",
    "OutOfMemory",
    "Progress",
    "PromptTooLong",
    "Ranking",
    "ResumeMismatch",
    "Segmentation",
    "Segmenter",
    "Source",
    "TrainConfig",
    "TrainingDiverged",
    "UnknownBackbone",
    "UnreadableImage",
    "calibrate",
    "encode",
    "evaluate",
    "fine_tune",
    "fit_temperature",
    "has_several_pages",
    "rank_adaptively",
    "rank_pool",
    "read_image",
    "read_mask",
    "segment_features",
]

_HOMES = {
    "DrawPlan": "adaptive",
    "Ranking": "adaptive",
    "rank_adaptively": "adaptive",
    "rank_pool": "adaptive",
    "calibrate": "calibration",
    "fit_temperature": "calibration",
    "Source": "backbones.towers",
    "ModelConfig": "config",
    "TrainConfig": "config",
    "Example": "data",
    "has_several_pages": "data",
    "read_image": "data",
    "read_mask": "data",
    "Metrics": "evaluation",
    "evaluate": "evaluation",
    "ImageFeatures": "features",
    "encode": "features",
    "segment_features": "features",
    "Segmentation": "segmentation",
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
