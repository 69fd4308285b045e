"""The model room as the loop's Learner: the same fine_tune, evaluate and Segmenter as production."""

from __future__ import annotations  # naming the model's types must not load torch

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import model
from simulation.dataset import Pair
from simulation.loop import Judged, Learner, M, Quality, Seen

if TYPE_CHECKING:
    from model.frames import Pixels

CHUNK = 16  # images that go to the model at once while a pool is scored
CACHE_BYTES = 1_500_000_000


@dataclass(frozen=True)
class MedClipSeg:
    """Trains from the weights `Segmenter.create(config, seed)` gives. on_progress hears every optimiser step."""

    config: model.ModelConfig
    training: model.TrainConfig
    n_draws: int = 8
    device: str = "cpu"
    on_progress: Callable[[model.Progress], None] | None = None
    _pictures: Pictures = field(default_factory=lambda: Pictures(CACHE_BYTES))

    def train(self, pairs: Sequence[Pair], seed: int) -> tuple[model.Segmenter, int]:
        """A fresh segmenter trained on the pairs, and the optimiser steps taken (fewer at a time limit)."""
        steps = 0

        def heard(progress: model.Progress) -> None:
            nonlocal steps
            steps = progress.step
            if self.on_progress:
                self.on_progress(progress)

        start = model.Segmenter.create(self.config, seed=seed, device=self.device)
        training = replace(self.training, seed=seed)
        return model.fine_tune(start, _examples(pairs), training, on_progress=heard), steps

    def evaluate(self, segmenter: model.Segmenter, pairs: Sequence[Pair]) -> Quality:
        """Over the pairs, in the image frame."""
        found = model.evaluate(segmenter, _examples(pairs), self.n_draws)
        each = zip(pairs, found.dice_per_image, found.confidence_per_image, strict=True)
        images = tuple(Judged(pair.id, dice, confidence) for pair, dice, confidence in each)
        return Quality(found.dice, found.nsd, found.ece, found.aurc, images)

    def segment(self, segmenter: model.Segmenter, pairs: Sequence[Pair], seed: int) -> Iterator[Seen]:
        """One Segmentation per pair, in order, a few images at a time."""
        for start in range(0, len(pairs), CHUNK):
            part = pairs[start : start + CHUNK]
            images = [self._pictures.read(pair.image) for pair in part]
            yield from segmenter.segment_many(images, [pair.prompt for pair in part], self.n_draws, seed)


@dataclass(frozen=True)
class Maker:
    """Makes a MedClipSeg in whatever process it is carried to."""

    config: model.ModelConfig
    training: model.TrainConfig
    n_draws: int
    device: str

    def __call__(self) -> Learner[Any]:
        """A new learner, with nothing remembered."""
        return MedClipSeg(self.config, self.training, self.n_draws, self.device)


class Pictures:
    """Decoded images by path, up to a weight in bytes: a pool is looked at in every round of every arm."""

    def __init__(self, most_bytes: int) -> None:
        self._kept: dict[Path, Pixels] = {}
        self._free = most_bytes

    def read(self, path: Path) -> Pixels:
        """The image at that path, from memory if it is there."""
        if path in self._kept:
            return self._kept[path]
        image = model.read_image(path)
        if image.nbytes <= self._free:
            self._kept[path] = image
            self._free -= image.nbytes
        return image


@dataclass
class SharedStart(Generic[M]):
    """A learner that does the round of the seed set once a seed: all arms of a seed begin with the same one."""

    learner: Learner[M]
    seed_size: int
    _key: tuple[int, tuple[str, ...]] | None = None
    _trained: tuple[M, int] | None = None
    _quality: Quality | None = None
    _seen: dict[str, Seen] = field(default_factory=dict)

    def train(self, pairs: Sequence[Pair], seed: int) -> tuple[M, int]:
        """See Learner."""
        if len(pairs) != self.seed_size:
            return self.learner.train(pairs, seed)
        key = seed, tuple(pair.id for pair in pairs)
        if key != self._key or self._trained is None:
            self._key, self._trained, self._quality, self._seen = key, self.learner.train(pairs, seed), None, {}
        return self._trained

    def evaluate(self, trained: M, pairs: Sequence[Pair]) -> Quality:
        """See Learner. The held-out set is the same in every round."""
        if not self._is_the_first(trained):
            return self.learner.evaluate(trained, pairs)
        if self._quality is None:
            self._quality = self.learner.evaluate(trained, pairs)
        return self._quality

    def segment(self, trained: M, pairs: Sequence[Pair], seed: int) -> Iterator[Seen]:
        """See Learner."""
        if not self._is_the_first(trained):
            yield from self.learner.segment(trained, pairs, seed)
            return
        missing = [pair for pair in pairs if pair.id not in self._seen]
        for pair, seen in zip(missing, self.learner.segment(trained, missing, seed), strict=True):
            self._seen[pair.id] = seen
        yield from (self._seen[pair.id] for pair in pairs)

    def _is_the_first(self, trained: Any) -> bool:
        return self._trained is not None and trained is self._trained[0]


def _examples(pairs: Sequence[Pair]) -> list[model.Example]:
    return [model.Example(pair.image, pair.mask, pair.prompt, pair.group) for pair in pairs]
