"""What models say of annotations that they did not train on. No rows, no Label Studio: examples in, figures out.

Each fold is judged by a model that learnt from the other folds, beginning from weights that never saw any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evidence.label_errors import Disagreement, disagreement

if TYPE_CHECKING:
    from model import Example, Progress, Segmenter, TrainConfig

_AT_ONCE = 8  # images in memory


@dataclass(frozen=True)
class Opinion:
    """What a model that never saw an example says of its mask; confidence: in [0, 1], `model.metrics.confidence`."""

    confidence: float
    disagreement: Disagreement


def judge_fold(
    start: Segmenter,
    examples: Sequence[Example],
    fold_of: NDArray[np.intp],
    fold: int,
    config: TrainConfig,
    *,
    n_draws: int = 4,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[int, Opinion]:
    """Train on all other folds, look at this one: position among the examples → opinion.

    fold_of: (n,) as `evidence.label_errors.folds` gives. Raises what `model.fine_tune` and `model.read_image` raise.
    """
    from model import fine_tune

    learnt = [one for one, at in zip(examples, fold_of, strict=True) if at != fold]
    trained = fine_tune(start, learnt, config, on_progress=on_progress)
    left_out = np.flatnonzero(fold_of == fold).tolist()
    opinions: dict[int, Opinion] = {}
    for first in range(0, len(left_out), _AT_ONCE):
        some = left_out[first : first + _AT_ONCE]
        found = _opinions(trained, [examples[at] for at in some], n_draws, config.seed)
        opinions |= dict(zip(some, found, strict=True))
    return opinions


def _opinions(segmenter: Segmenter, examples: Sequence[Example], n_draws: int, seed: int) -> list[Opinion]:
    from model import read_image, read_mask
    from model.metrics import confidence

    images = [read_image(example.image) for example in examples]
    answers = segmenter.segment_many(images, [example.prompt for example in examples], n_draws, seed)
    opinions = []
    for example, answer in zip(examples, answers, strict=True):
        # In the model frame, so that neither cost nor figures depend on how large the image is.
        probability = answer.draws.mean(0)
        mask = _resized(read_mask(example.mask), probability.shape)
        opinions.append(Opinion(confidence(probability), disagreement(probability, mask)))
    return opinions


def _resized(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask in another frame: true where most of the pixel is. (H, W) → (h, w)."""
    height, width = shape
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BOX)
    return np.asarray(grey) >= 128
