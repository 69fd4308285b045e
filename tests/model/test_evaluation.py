"""An evaluation is the metrics of what an annotator would be shown, image by image, in the order of the examples."""

import dataclasses
import json
import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from model import BadExample, BadInput, Example, NoExamples, Segmentation, Segmenter, evaluate, metrics
from model.evaluation import CHUNK, Evaluation


class Oracle(Segmenter):
    """Answers with given maps, in turn; the only draw is half as large. Remembers what it was asked."""

    def __init__(self, maps):
        self.maps = list(maps)
        self.asked: list[tuple[int, int, int]] = []

    def segment_many(self, images, prompts, n_draws=8, seed=0):
        self.asked.append((len(images), n_draws, seed))
        maps = [self.maps.pop(0) for _ in images]
        return [Segmentation(p, p[None, ::2, ::2], np.zeros(1, np.float32)) for p in maps]


def masks_of(examples):
    return [np.asarray(Image.open(example.mask)) > 127 for example in examples]


def doubtful(masks, seed=0):
    """Maps that are right in places: the masks blurred, with noise."""
    rng = np.random.default_rng(seed)
    blurred = [ndimage.gaussian_filter(mask.astype(float), 6) for mask in masks]
    return [np.clip(b + 0.1 * rng.normal(size=b.shape), 0, 1).astype(np.float32) for b in blurred]


def test_every_number_is_what_the_metrics_say(examples):
    truths = masks_of(examples)
    maps = doubtful(truths)
    maps[3] = np.zeros_like(maps[3])
    found = evaluate(Oracle(maps), examples)
    pairs = [(p >= 0.5, truth) for p, truth in zip(maps, truths, strict=True)]
    for name in ("dice", "nsd", "iou", "hd95"):
        assert getattr(found, name) == pytest.approx(np.mean([getattr(metrics, name)(*pair) for pair in pairs]))
    assert found.nsd_released == pytest.approx(np.mean([round(metrics.nsd_released(*pair), 4) for pair in pairs]))
    assert found.brier == pytest.approx(np.mean([metrics.brier(*pair) for pair in zip(maps, truths, strict=True)]))
    risks = [1 - metrics.dice(*pair) for pair in pairs]
    assert found.aurc == pytest.approx(metrics.aurc(risks, [metrics.confidence(p[::2, ::2]) for p in maps]))
    together = metrics.Reliability()
    together.add(np.concatenate(maps), np.concatenate(truths))
    assert found.ece == pytest.approx(together.ece())


def test_the_order_of_the_examples_is_kept_and_the_result_is_json(examples):
    masks = masks_of(examples)
    maps = [mask.astype(np.float32) for mask in masks]
    maps[2] = 1 - maps[2]
    maps[4] = np.zeros_like(maps[4])
    found = evaluate(Oracle(maps), examples)
    assert found.dice_per_image == (1.0, 1.0, 0.0, 1.0, 0.0, 1.0)
    assert found.n_images == 6
    assert found.dice == pytest.approx(4 / 6) and found.iou == pytest.approx(4 / 6)
    written = json.dumps(found.to_dict(), allow_nan=False)
    lists = {name: list(getattr(found, name)) for name in ("dice_per_image", "confidence_per_image")}
    assert json.loads(written) == {**dataclasses.asdict(found), **lists}


@pytest.mark.parametrize("predicted", [0.0, 1.0])
@pytest.mark.parametrize("truth", [False, True])
def test_empty_and_full_masks_give_finite_numbers(predicted, truth):
    evaluation = Evaluation()
    evaluation.add(np.full((7, 9), predicted, np.float32), np.full((7, 9), truth))
    found = evaluation.result().to_dict()
    lists = found.pop("dice_per_image") + found.pop("confidence_per_image")
    assert all(math.isfinite(value) for value in [*lists, *found.values()])
    assert found["dice"] == found["nsd"] == found["nsd_released"] == float(predicted == truth)


def test_more_examples_than_one_chunk(examples):
    many = (examples * 3)[: 2 * CHUNK + 1]
    oracle = Oracle([mask.astype(np.float32) for mask in masks_of(many)])
    found = evaluate(oracle, many, n_draws=3, seed=7)
    assert found.dice_per_image == (1.0,) * len(many)
    assert oracle.asked == [(CHUNK, 3, 7), (CHUNK, 3, 7), (1, 3, 7)]


def test_adding_maps_by_hand_is_the_same_evaluation(examples):
    truths = masks_of(examples)
    maps = doubtful(truths)
    evaluation = Evaluation()
    for p, truth in zip(maps, truths, strict=True):
        evaluation.add(p, truth)
    by_hand, by_files = evaluation.result().to_dict(), evaluate(Oracle(maps), examples).to_dict()
    for of_rank in ("aurc", "confidence_per_image"):
        assert by_hand.pop(of_rank) != by_files.pop(
            of_rank
        )  # the maps are ranked in the image frame, draws in the model's
    assert by_hand == by_files
    assert sum(b.n_pixels for b in evaluation.reliability.bins()) == sum(truth.size for truth in truths)


def test_images_are_ranked_by_the_confidence_given():
    wrong, right = np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32)
    aurcs = []
    for sure_of_wrong in (0.1, 0.9):
        evaluation = Evaluation()
        evaluation.add(wrong, np.ones((4, 4), bool), confidence=sure_of_wrong)
        evaluation.add(right, np.ones((4, 4), bool), confidence=0.5)
        aurcs.append(evaluation.result().aurc)
    assert aurcs == [(0 + 1 / 2) / 2, (1 + 1 / 2) / 2]


def test_nothing_to_evaluate_and_bad_examples(segmenter, tmp_path, examples):
    with pytest.raises(NoExamples, match="held-out"):
        evaluate(segmenter, [])
    gone = Example(tmp_path / "gone.png", examples[0].mask, "a disc", "g")
    with pytest.raises(BadExample, match=r"gone\.png"):
        evaluate(segmenter, [examples[0], gone])


def test_a_map_of_no_numbers_is_no_result(examples):
    maps = doubtful(masks_of(examples))
    maps[1][0, 0] = np.nan
    with pytest.raises(BadInput, match="weights"):
        evaluate(Oracle(maps), examples)


@pytest.mark.parametrize("n_draws", [0, 2])
def test_a_real_segmenter_is_measured(segmenter, examples, n_draws):
    found = evaluate(segmenter, examples, n_draws=n_draws)
    assert found == evaluate(segmenter, examples, n_draws=n_draws)
    assert found.iou <= found.dice and found.n_images == len(examples)
    seeds_differ = evaluate(segmenter, examples, n_draws=n_draws, seed=1).brier != found.brier
    assert seeds_differ == (n_draws > 0)
