"""The model room as the loop's Learner: the same fine_tune, evaluate and Segmenter as production."""

from __future__ import annotations  # naming the model's types must not load torch

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import model
from simulation.dataset import Pair
from simulation.loop import Quality, Seen

CHUNK = 16  # images held in memory at once while a pool is scored


@dataclass(frozen=True)
class MedClipSeg:
    """Trains from the weights `Segmenter.create(config, seed)` gives. on_progress hears every optimiser step."""

    config: model.ModelConfig
    training: model.TrainConfig
    n_draws: int = 8
    device: str = "cpu"
    on_progress: Callable[[model.Progress], None] | None = None

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
        """Mean Dice and NSD over the pairs, in the image frame."""
        metrics = model.evaluate(segmenter, _examples(pairs))
        return Quality(metrics.dice, metrics.nsd)

    def segment(self, segmenter: model.Segmenter, pairs: Sequence[Pair], seed: int) -> Iterator[Seen]:
        """One Segmentation per pair, in order, a few images in memory at a time."""
        for start in range(0, len(pairs), CHUNK):
            part = pairs[start : start + CHUNK]
            images = [model.read_image(pair.image) for pair in part]
            yield from segmenter.segment_many(images, [pair.prompt for pair in part], self.n_draws, seed)


def _examples(pairs: Sequence[Pair]) -> list[model.Example]:
    return [model.Example(pair.image, pair.mask, pair.prompt, pair.group) for pair in pairs]
