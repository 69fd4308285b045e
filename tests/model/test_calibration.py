"""A temperature is the likeliest one, for any number of draws, and a calibrated segmenter has it."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from model import (
    BadExample,
    BadInput,
    Example,
    ModelConfig,
    NoExamples,
    Segmentation,
    Segmenter,
    calibrate,
    fit_temperature,
)
from model.calibration import HIGHEST, LOWEST, _at_model_pixels, probability_at
from model.frames import Placement, mask_to_model_frame
from model.metrics import Reliability, brier


def world(seed, temperature, n_draws=1, shapes=((60, 60), (60, 60))):
    """Per image logits (N, h, w), and a mask drawn from what they mean at that temperature."""
    rng = np.random.default_rng(seed)
    logits = [4 * rng.normal(size=shape) + rng.normal(size=(n_draws, *shape)) for shape in shapes]
    return logits, [rng.random(image.shape[1:]) < sigmoid(image / temperature).mean(0) for image in logits]


def sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))


def slow_loss(temperature, logits, masks):
    """Mean over images of the mean negative log likelihood of their pixels, straight from the definition."""
    p = [sigmoid(image / temperature).mean(0) for image in logits]
    return np.mean([-np.log(np.where(mask, chance, 1 - chance)).mean() for chance, mask in zip(p, masks, strict=True)])


# ---- the fit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_draws", [1, 5])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_made_the_masks_is_found(temperature, n_draws):
    logits, masks = world(0, temperature, n_draws, shapes=((150, 150), (100, 200)))
    assert fit_temperature(logits, masks) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("seed", range(8))
def test_no_temperature_is_likelier(seed):
    """Few pixels and many draws: the loss may have several valleys, and the deepest is wanted."""
    rng = np.random.default_rng(seed)
    logits = [rng.normal(size=(4, 5)) * rng.choice([0.3, 3, 30], size=(4, 5)) for _ in range(2)]
    masks = [np.arange(5) % 2 == k for k in range(2)]
    least = min(slow_loss(t, logits, masks) for t in np.geomspace(LOWEST, HIGHEST, 2000))
    assert slow_loss(fit_temperature(logits, masks), logits, masks) == pytest.approx(least, abs=1e-4)


@pytest.mark.parametrize("seed", [71, 466, 489, 1378, 1919])
def test_of_two_valleys_the_deeper_is_found(seed):
    """Seeds, found by search, at which the loss over T has two valleys and one search from end to end falls short."""
    rng = np.random.default_rng(seed)
    margins, mask = rng.normal(size=(3, 4)) * rng.choice([0.1, 1, 10, 100], size=(3, 4)), np.arange(4) % 2 == 0
    logits = [np.where(mask, margins, -margins)]
    temperatures = np.geomspace(LOWEST, HIGHEST, 2000)
    losses = np.array([slow_loss(t, logits, [mask]) for t in temperatures])
    assert ((losses[1:-1] < losses[:-2]) & (losses[1:-1] < losses[2:])).sum() == 2
    assert slow_loss(fit_temperature(logits, [mask]), logits, [mask]) == pytest.approx(losses.min(), abs=1e-4)


def test_one_absurd_pixel_does_not_decide():
    logits, masks = world(6, 1.0, shapes=((300, 300),))
    logits[0][0, 0, 0], masks[0][0, 0] = 1e5, False
    assert fit_temperature(logits, masks) == pytest.approx(1.0, rel=0.05)


def test_every_image_counts_once_whatever_its_size():
    (small, large), (small_mask, large_mask) = world(1, 1.0, 3, shapes=((20, 20), (40, 40)))
    small = small * 3  # so that the two ask for different temperatures
    doubled = [np.concatenate([image] * 2, axis=-1) for image in (large, large_mask)]
    once = fit_temperature([small, large], [small_mask, large_mask])
    assert fit_temperature([small, doubled[0]], [small_mask, doubled[1]]) == pytest.approx(once, rel=1e-3)
    twice = fit_temperature([small, large, large], [small_mask, large_mask, large_mask])
    assert abs(np.log(twice / once)) > 0.05


def test_logits_twice_as_large_need_twice_the_temperature():
    logits, masks = world(2, 1.3, 4)
    once = fit_temperature(logits, masks)
    assert fit_temperature([2 * image for image in logits], masks) == pytest.approx(2 * once, rel=1e-3)


def test_the_fit_is_deterministic_and_leaves_its_input_alone():
    logits, masks = world(3, 2.0, 3)
    before = [image.copy() for image in (*logits, *masks)]
    assert fit_temperature(logits, masks) == fit_temperature(logits, masks)
    for old, new in zip(before, (*logits, *masks), strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_no_temperature_can_mend_ends_at_a_bound():
    logits, _ = world(4, 1.0)
    right = [image[0] >= 0 for image in logits]
    assert fit_temperature(logits, right) == pytest.approx(LOWEST, rel=0.01)
    assert fit_temperature(logits, [~mask for mask in right]) == pytest.approx(HIGHEST, rel=0.01)


def test_an_overconfident_network_becomes_honest():
    logits, masks = world(5, 3.0, 2, shapes=((80, 80),) * 4)
    temperature = fit_temperature(logits[:2], masks[:2])

    def quality(temperature):
        reliability, scores = Reliability(), []
        for image, mask in zip(logits[2:], masks[2:], strict=True):
            reliability.add(probability_at(image, temperature), mask)
            scores.append(brier(probability_at(image, temperature), mask))
        return reliability.ece(), np.mean(scores)

    (raw_ece, raw_brier), (ece, mended_brier) = quality(1.0), quality(temperature)
    assert raw_ece > 0.05 and ece < 0.02
    assert mended_brier < raw_brier


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_pass_keeps_its_mask_and_its_order_at_every_temperature(dtype):
    logits = np.random.default_rng(0).normal(size=(1, 50, 50)).astype(dtype) * 8
    logits[0, 0, :2] = 0, -1e-30
    order = np.argsort(logits.ravel(), kind="stable")
    for temperature in (LOWEST, 0.7, 1.0, 3.0, HIGHEST):
        p = probability_at(logits, temperature)
        np.testing.assert_array_equal(p >= 0.5, sigmoid(logits[0]) >= 0.5)
        assert (np.diff(p.ravel()[order]) >= 0).all()


def test_a_higher_temperature_is_less_sure():
    logits, _ = world(0, 1.0, 3)
    distances = [np.abs(probability_at(logits[0][:1], t) - 0.5) for t in (0.5, 1.0, 2.0)]
    assert all((a >= b).all() for a, b in pairwise(distances))


def test_nothing_to_fit_on_is_said():
    logits, masks = world(0, 1.0, 2)
    with pytest.raises(NoExamples, match="held-out"):
        fit_temperature([], [])
    with pytest.raises(BadInput, match="2 maps of logits came with 1 masks"):
        fit_temperature(logits, masks[:1])
    with pytest.raises(BadInput, match="of image 1 do not fit"):
        fit_temperature(logits, [masks[0], masks[1][:5]])
    with pytest.raises(BadInput, match="same number of draws"):
        fit_temperature([logits[0], logits[1][:1]], masks)
    with pytest.raises(BadInput, match="bool"):
        fit_temperature(logits, [mask.astype(float) for mask in masks])
    with pytest.raises(BadInput, match="all background"):
        fit_temperature(logits, [mask & False for mask in masks])
    with pytest.raises(BadInput, match="all foreground"):
        fit_temperature(logits, [mask | True for mask in masks])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(wrong):
    logits, masks = world(0, 1.0, 2)
    logits[1][0, 3, 3] = wrong
    with pytest.raises(BadInput, match="image 1 are not finite"):
        fit_temperature(logits, masks)


# ---- segmenters ---------------------------------------------------------------------------------------------------


class Known(Segmenter):
    """Answers with given logits; an image's first pixel says which."""

    def __init__(self, logits, temperature=1.0):
        self.logits, self.temperature = logits, temperature
        self.asked: list[tuple[int, int]] = []

    def with_temperature(self, temperature):
        other = Known(self.logits, temperature)
        other.asked = self.asked
        return other

    def segment_many(self, images, prompts, n_draws=8, seed=0):
        self.asked.append((n_draws, seed))
        draws = [sigmoid(self.logits[image.flat[0]] / self.temperature).astype(np.float32) for image in images]
        return [Segmentation(d.mean(0), d, np.zeros(1, np.float32)) for d in draws]


def files(folder, masks, stretch=(1, 1)):
    """Examples whose image says its number, and whose mask is stretched by whole numbers."""
    examples = []
    for k, mask in enumerate(masks):
        large = np.kron(mask, np.ones(stretch, bool))
        paths = folder / f"{k}.png", folder / f"{k}-mask.png"
        Image.fromarray(np.full(large.shape, k, np.uint8)).save(paths[0])
        Image.fromarray(large.astype(np.uint8) * 255).save(paths[1])
        examples.append(Example(*paths, "a disc", "g"))
    return examples


@pytest.mark.parametrize("stretch", [(1, 1), (2, 3)])
def test_calibrating_finds_the_temperature_of_the_masks_in_files(tmp_path, stretch):
    logits, masks = world(0, 2.0, 3, shapes=((50, 60),) * 10)
    segmenter = Known(logits)
    calibrated = calibrate(segmenter, files(tmp_path, masks, stretch), n_draws=3, seed=5)
    assert calibrated.temperature == pytest.approx(fit_temperature(logits, masks), rel=0.02)
    assert segmenter.temperature == 1.0 and set(segmenter.asked) == {(3, 5)}
    again = calibrate(calibrated, files(tmp_path, masks, stretch), n_draws=3, seed=5)
    assert again.temperature == pytest.approx(calibrated.temperature, rel=1e-4)


def test_logits_too_sure_for_float32_are_read_all_the_same(tmp_path):
    logits, masks = world(0, 2.0, shapes=((50, 60),) * 3)
    calibrated = calibrate(Known([20 * image for image in logits]), files(tmp_path, masks))
    assert calibrated.temperature == HIGHEST
    logits[0][0, 0, 0] = 5000
    assert calibrate(Known(logits), files(tmp_path, masks)).temperature == pytest.approx(2, rel=0.1)


def test_a_network_that_answers_no_numbers_is_refused(tmp_path):
    logits, masks = world(0, 2.0)
    logits[1][:] = np.nan
    with pytest.raises(BadInput, match="image 1 are not finite"):
        calibrate(Known(logits), files(tmp_path, masks))


@pytest.mark.parametrize("shape", [(300, 200), (40, 170)])
@pytest.mark.parametrize("fit", ["squash", "letterbox"])
def test_masks_meet_the_draws_pixel_by_pixel(shape, fit):
    config = ModelConfig(image_size_px=64, fit=fit)
    mask = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 15) > 0
    inside = mask_to_model_frame(mask, config)[Placement.of(shape, config).inside]
    assert (_at_model_pixels(mask, inside.shape) == inside).mean() > 0.97


@pytest.mark.parametrize("n_draws", [0, 2])
def test_a_real_segmenter_is_calibrated_and_its_weights_are_shared(segmenter, examples, n_draws):
    calibrated = calibrate(segmenter, examples, n_draws=n_draws)
    assert calibrated.network is segmenter.network
    assert LOWEST <= calibrated.temperature <= HIGHEST and segmenter.temperature == 1.0
    assert calibrate(segmenter, examples, n_draws=n_draws).temperature == calibrated.temperature


def test_nothing_to_calibrate_on_and_bad_files(segmenter, examples, tmp_path):
    with pytest.raises(NoExamples):
        calibrate(segmenter, [])
    gone = Example(tmp_path / "gone.png", examples[0].mask, "a disc", "g")
    with pytest.raises(BadExample, match=r"gone\.png"):
        calibrate(segmenter, [examples[0], gone])
