"""How good a segmenter is on labelled images: overlap, boundary, calibration and ranking by confidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from model import metrics
from model.data import Example, load_pairs
from model.errors import NoExamples
from model.metrics import Map, Mask

if TYPE_CHECKING:
    from model.segmenter import Segmenter

CHUNK = 8
"""Images held in memory at once."""


@dataclass(frozen=True)
class Metrics:
    """What `model.metrics` says of a set of images, all of it in the image frame and finite.

    dice, nsd, iou, brier: means over images of values in [0, 1]; dice_per_image, confidence_per_image: in the order of
    the images, confidence as what ranks them (`metrics.confidence` of the mean draw); ece: in [0, 1], over the pixels
    of all images; hd95: mean over images, pixels; nsd_released: as the released evaluation prints it, per image
    rounded; aurc: of risk 1 − Dice, images ranked by their confidence.
    """

    dice: float
    nsd: float
    iou: float
    dice_per_image: tuple[float, ...]
    confidence_per_image: tuple[float, ...]
    ece: float
    n_images: int
    hd95: float
    nsd_released: float
    brier: float
    aurc: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        lists = {name: list(getattr(self, name)) for name in ("dice_per_image", "confidence_per_image")}
        return {**dataclasses.asdict(self), **lists}


@dataclass(frozen=True)
class _Scores:
    """Of one image."""

    dice: float
    nsd: float
    iou: float
    hd95: float
    nsd_released: float
    brier: float
    confidence: float


class Evaluation:
    """Compares answers with the truth, image by image; holds a few numbers per image and no pixels."""

    def __init__(self) -> None:
        self._scores: list[_Scores] = []
        self.reliability = metrics.Reliability()

    def add(self, probability: Map, truth: Mask, confidence: float | None = None) -> None:
        """Compare what an annotator would be shown, probability ≥ 0.5, with the truth; both (H, W).

        confidence is what ranks the image for the AURC: by default `metrics.confidence` of the map. Raises BadInput.
        """
        self.reliability.add(probability, truth)
        predicted = probability >= 0.5
        distances = metrics.BoundaryDistances.between(predicted, truth)
        self._scores.append(
            _Scores(
                dice=metrics.dice(predicted, truth),
                nsd=distances.nsd(),
                iou=metrics.iou(predicted, truth),
                hd95=distances.hd95(),
                nsd_released=metrics.nsd_released(predicted, truth),
                brier=metrics.brier(probability, truth),
                confidence=metrics.confidence(probability) if confidence is None else confidence,
            )
        )

    def result(self) -> Metrics:
        """Of all images so far. Raises NoExamples if there is none."""
        if not self._scores:
            raise NoExamples("there is nothing to evaluate on; label some held-out images first")
        dice = self._column("dice")
        return Metrics(
            dice=float(np.mean(dice)),
            nsd=float(np.mean(self._column("nsd"))),
            iou=float(np.mean(self._column("iou"))),
            dice_per_image=tuple(dice),
            confidence_per_image=tuple(self._column("confidence")),
            ece=self.reliability.ece(),
            n_images=len(dice),
            hd95=float(np.mean(self._column("hd95"))),
            nsd_released=metrics.released_mean(self._column("nsd_released")),
            brier=float(np.mean(self._column("brier"))),
            aurc=metrics.aurc([1 - d for d in dice], self._column("confidence")),
        )

    def _column(self, name: str) -> list[float]:
        return [getattr(scores, name) for scores in self._scores]


def evaluate(segmenter: Segmenter, examples: Sequence[Example], n_draws: int = 8, seed: int = 0) -> Metrics:
    """Compare what an annotator would be shown (probability ≥ 0.5, image frame) with the examples' masks.

    n_draws = 0 evaluates the deterministic mean path. Raises NoExamples, BadInput, and BadExample naming every file
    that cannot be used.
    """
    evaluation = Evaluation()
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        pairs = load_pairs(chunk, lambda image, mask: (image, mask))
        answers = segmenter.segment_many([image for image, _ in pairs], [e.prompt for e in chunk], n_draws, seed)
        for answer, (_, truth) in zip(answers, pairs, strict=True):
            # In the model frame, like the scores of the pool, so that images of all resolutions compare.
            evaluation.add(answer.probability, truth, metrics.confidence(answer.draws.mean(0)))
    return evaluation.result()
