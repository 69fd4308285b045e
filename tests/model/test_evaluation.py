"""Metrics against brute force, and the conventions for empty masks."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from model import BadExample, Example, NoExamples, Segmenter, evaluate
from model.evaluation import Calibration, boundary, dice, iou, nsd
from model.segmenter import Segmentation


def random_masks(seed):
    rng = np.random.default_rng(seed)
    return rng.random((9, 11)) < rng.uniform(0.1, 0.9), rng.random((9, 11)) < rng.uniform(0.1, 0.9)


def brute_boundary(mask):
    """Foreground pixels with a neighbour above, below or beside that is background or outside."""
    found = []
    for r, c in np.argwhere(mask):
        around = [(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]
        inside = [0 <= i < mask.shape[0] and 0 <= j < mask.shape[1] and mask[i, j] for i, j in around]
        if not all(inside):
            found.append((r, c))
    return np.array(found, dtype=float).reshape(-1, 2)


def brute_nsd(one, other, tolerance):
    a, b = brute_boundary(one), brute_boundary(other)
    near = sum(np.hypot(*(b - p).T).min() <= tolerance for p in a) + sum(
        np.hypot(*(a - p).T).min() <= tolerance for p in b
    )
    return near / (len(a) + len(b))


@pytest.mark.parametrize("seed", range(12))
def test_metrics_equal_brute_force(seed):
    one, other = random_masks(seed)
    both, either = np.logical_and(one, other).sum(), np.logical_or(one, other).sum()
    assert dice(one, other) == pytest.approx(2 * both / (one.sum() + other.sum()))
    assert iou(one, other) == pytest.approx(both / either)
    for tolerance in (0.5, 1.0, 2.0):
        assert nsd(one, other, tolerance) == pytest.approx(brute_nsd(one, other, tolerance))
    np.testing.assert_array_equal(np.argwhere(boundary(one)), brute_boundary(one))


def square(shift, side=20):
    mask = np.zeros((64, 64), bool)
    mask[20 : 20 + side, 20 + shift : 20 + shift + side] = True
    return mask


def test_nsd_sees_only_boundaries():
    assert nsd(square(0), square(2)) == 1.0
    assert nsd(square(0), square(3)) < 1.0
    hollow = square(0)
    hollow[26:34, 26:34] = False
    assert nsd(square(0), hollow) == pytest.approx((76 + 76) / (76 + 76 + 4 * 8))


@pytest.mark.parametrize("metric", [dice, iou, nsd])
def test_empty_masks(metric):
    empty, some = np.zeros((5, 5), bool), np.eye(5, dtype=bool)
    assert metric(empty, empty) == 1.0
    assert metric(some, empty) == metric(empty, some) == 0.0
    assert metric(some, some) == 1.0


def test_calibration_equals_brute_force():
    rng = np.random.default_rng(0)
    probabilities = [rng.random((6, 7)).astype(np.float32) for _ in range(3)]
    probabilities[0][0, :2] = 0, 1
    truths = [rng.random((6, 7)) < p for p in probabilities]
    calibration = Calibration()
    for p, truth in zip(probabilities, truths, strict=True):
        calibration.add(p, truth)
    p, truth = np.concatenate([p.ravel() for p in probabilities]), np.concatenate([t.ravel() for t in truths])
    expected = 0.0
    for k in range(15):
        chosen = (p >= k / 15) & ((p < (k + 1) / 15) | (k == 14))
        if chosen.any():
            expected += chosen.mean() * abs(p[chosen].mean() - truth[chosen].mean())
    assert calibration.error() == pytest.approx(expected, abs=1e-6)


class Oracle(Segmenter):
    """Answers with given probabilities, in turn."""

    def __init__(self, maps):
        self.maps = list(maps)

    def segment_many(self, images, prompts, n_draws=8, seed=0):
        nothing = np.zeros((1, 1, 1), np.float32)
        return [Segmentation(self.maps.pop(0), nothing, nothing[0, 0]) for _ in images]


def test_evaluation_keeps_the_order_of_the_examples(tmp_path, examples):
    masks = [np.asarray(Image.open(example.mask)) > 127 for example in examples]
    maps = [mask.astype(np.float32) for mask in masks]
    maps[2] = 1 - maps[2]
    maps[4] = np.zeros_like(maps[4])
    metrics = evaluate(Oracle(maps), examples)
    assert metrics.dice_per_image == (1.0, 1.0, 0.0, 1.0, 0.0, 1.0)
    assert metrics.n_images == 6
    assert metrics.dice == pytest.approx(4 / 6) and metrics.iou == pytest.approx(4 / 6)
    assert json.loads(json.dumps(metrics.to_dict())) == {
        **dataclasses.asdict(metrics),
        "dice_per_image": list(metrics.dice_per_image),
    }


def test_more_examples_than_one_chunk(examples):
    masks = [(np.asarray(Image.open(example.mask)) > 127).astype(np.float32) for example in examples * 3]
    assert evaluate(Oracle(masks), examples * 3).dice == 1.0


def test_nothing_to_evaluate_and_bad_examples(segmenter, tmp_path, examples):
    with pytest.raises(NoExamples):
        evaluate(segmenter, [])
    gone = Example(tmp_path / "gone.png", examples[0].mask, "a disc", "g")
    with pytest.raises(BadExample, match=r"gone\.png"):
        evaluate(segmenter, [examples[0], gone])


def test_a_real_segmenter_is_measured(segmenter, examples):
    metrics = evaluate(segmenter, examples, n_draws=2)
    assert metrics == evaluate(segmenter, examples, n_draws=2)
    assert 0 <= metrics.nsd <= 1 and 0 <= metrics.ece <= 1 and metrics.iou <= metrics.dice
