"""What can go wrong in the model room; every error says what is wrong and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class ModelError(Exception):
    """Base of every error this room raises on purpose."""


class BadConfig(ModelError):
    """A model or training configuration holds an unknown key or an impossible value."""


class UnknownBackbone(ModelError):
    """No backbone is registered under that name."""


class BackboneUnavailable(ModelError):
    """Weights or vocabulary of a pretrained backbone are neither on disk nor to be had from the hub."""


class PromptTooLong(ModelError):
    """A prompt has more tokens than the text tower can take; cutting it would change what it says."""

    def __init__(self, prompt: str, n_tokens: int, limit: int) -> None:
        super().__init__(f"the prompt {prompt[:60]!r}… has {n_tokens} tokens, the text tower takes {limit}; shorten it")


class BadInput(ModelError):
    """An array, prompt or count handed to the segmenter has the wrong type, shape or value."""


class UnreadableImage(ModelError):
    """A file cannot be decoded as an image: missing, truncated or of an unknown format."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot read image {path}: {reason}; replace the file or leave it out")
        self.path = path


class ImageTooLarge(ModelError):
    """An image announces more pixels than allowed; it was not decoded."""

    def __init__(self, path: Path, announced: str, max_pixels: int) -> None:
        super().__init__(
            f"image {path} announces {announced}, more than the {max_pixels} px allowed; "
            "make it smaller or raise the limit"
        )
        self.path = path


class NoExamples(ModelError):
    """Training or evaluation was asked for with an empty list of examples."""


class BadExample(ModelError):
    """Examples whose image or mask cannot be used. `path` is the first culprit, `paths` all of them."""

    def __init__(self, paths: Sequence[Path], reasons: Sequence[str]) -> None:
        super().__init__(f"{len(paths)} example(s) cannot be used: {'; '.join(reasons)}. Leave them out or repair them")
        self.path = paths[0]
        self.paths = tuple(paths)


class TrainingDiverged(ModelError):
    """The loss or the weights stopped being finite."""


class NonFiniteWeights(ModelError):
    """A network to start from holds weights that are no numbers, or infinite."""


class OutOfMemory(ModelError):
    """Not even one image at a time can be trained on: the memory of the device is too small, or taken."""


class CheckpointUnreadable(ModelError):
    """A file is not a checkpoint of this room, or its content is damaged."""


class CheckpointMismatch(ModelError):
    """A checkpoint is sound but does not fit the network its own configuration describes."""


class ResumeMismatch(ModelError):
    """A training state belongs to another job: other start, examples or settings."""
