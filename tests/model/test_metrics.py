"""Metrics against brute force, an independent library and published worked examples; and every empty case."""

import numpy as np
import pytest
import torch
from monai.metrics.calibration import calibration_binning
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from scipy import ndimage

import strategies
from model import BadInput
from model.metrics import (
    N_BINS,
    BoundaryDistances,
    Reliability,
    aurc,
    boundary,
    brier,
    confidence,
    dice,
    hd95,
    iou,
    nsd,
    nsd_released,
    released_mean,
    risk_coverage,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # monai, of itself

EMPTY, SOME = np.zeros((5, 5), bool), np.eye(5, dtype=bool)


def random_masks(seed, shape=(9, 11)):
    """Two masks that are never empty: noise for even seeds, blobs that touch the edges for odd ones."""
    rng = np.random.default_rng(seed)
    if seed % 2:
        fields = [ndimage.gaussian_filter(rng.normal(size=shape), 1.5) for _ in range(2)]
        return tuple(field >= np.quantile(field, rng.uniform(0.2, 0.9)) for field in fields)
    return rng.random(shape) < rng.uniform(0.1, 0.9), rng.random(shape) < rng.uniform(0.1, 0.9)


def brute_boundary(mask):
    """Foreground pixels with a neighbour above, below or beside that is background or outside."""
    found = []
    for r, c in np.argwhere(mask):
        around = [(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]
        inside = [0 <= i < mask.shape[0] and 0 <= j < mask.shape[1] and mask[i, j] for i, j in around]
        if not all(inside):
            found.append((r, c))
    return np.array(found, dtype=float).reshape(-1, 2)


def brute_distances(one, other):
    a, b = brute_boundary(one), brute_boundary(other)
    return [np.hypot(*(b - p).T).min() for p in a], [np.hypot(*(a - p).T).min() for p in b]


def tensor(mask):
    return torch.from_numpy(mask[None, None].astype(np.uint8))


# ---- masks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_metrics_equal_brute_force(seed):
    one, other = random_masks(seed)
    both, either = np.logical_and(one, other).sum(), np.logical_or(one, other).sum()
    assert dice(one, other) == pytest.approx(2 * both / (one.sum() + other.sum()))
    assert iou(one, other) == pytest.approx(both / either)
    np.testing.assert_array_equal(np.argwhere(boundary(one)), brute_boundary(one))
    there, back = brute_distances(one, other)
    for tolerance in (0.5, 1.0, 2.0):
        near = sum(d <= tolerance for d in there + back) / len(there + back)
        assert nsd(one, other, tolerance) == pytest.approx(near)
    assert hd95(one, other) == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    shared = BoundaryDistances.between(one, other)
    assert (shared.nsd(), shared.hd95()) == (nsd(one, other), hd95(one, other))


@pytest.mark.parametrize("shape", [(9, 11), (1, 30), (3, 3), (40, 25)])
@pytest.mark.parametrize("seed", range(6))
def test_boundary_metrics_equal_those_of_a_library(seed, shape):
    one, other = random_masks(seed, shape)
    one[shape[0] // 2, shape[1] // 2] = other[0, 0] = True
    pair = tensor(one), tensor(other)
    library_nsd = compute_surface_dice(*pair, [2.0], include_background=True).item()
    library_hd95 = compute_hausdorff_distance(*pair, include_background=True, percentile=95).item()
    assert nsd(one, other) == pytest.approx(library_nsd, abs=1e-6)
    assert hd95(one, other) == pytest.approx(library_hd95, abs=1e-5)


@pytest.mark.parametrize("shape", [(9, 11), (1, 30), (3, 3), (40, 25)])
@pytest.mark.parametrize("tolerance", [1.0, 2.0])
@pytest.mark.parametrize("seed", range(6))
def test_the_released_nsd_is_that_of_a_volume_one_voxel_thick(seed, tolerance, shape):
    one, other = random_masks(seed, shape)
    one[shape[0] // 2, shape[1] // 2] = other[0, 0] = True
    slabs = tensor(one)[..., None], tensor(other)[..., None]
    library = compute_surface_dice(
        *slabs, [tolerance], include_background=True, use_subvoxels=True, spacing=(1, 1, 1)
    ).item()
    assert nsd_released(one, other, tolerance) == pytest.approx(library, abs=1e-6)


@pytest.mark.parametrize("metric", [dice, iou, nsd, nsd_released])
def test_scores_of_empty_masks(metric):
    assert metric(EMPTY, EMPTY) == 1.0
    assert metric(SOME, EMPTY) == metric(EMPTY, SOME) == 0.0
    assert metric(SOME, SOME) == 1.0


def test_hd95_of_empty_masks():
    assert hd95(EMPTY, EMPTY) == hd95(SOME, SOME) == 0.0
    corners = np.zeros((4, 13), bool), np.zeros((4, 13), bool)
    corners[0][0, 0] = corners[1][-1, -1] = True
    worst = hd95(*corners)
    assert worst == pytest.approx(np.hypot(3, 12))
    assert hd95(corners[0], np.zeros((4, 13), bool)) == hd95(np.zeros((4, 13), bool), corners[0]) == worst


@pytest.mark.parametrize("metric", [dice, iou, nsd, nsd_released, hd95])
@pytest.mark.parametrize("seed", range(4))
def test_metrics_are_symmetric_and_do_not_care_where_in_the_image_things_lie(metric, seed):
    one, other = random_masks(seed)
    assert metric(one, other) == pytest.approx(metric(other, one))
    inside = [np.pad(mask, ((3, 1), (2, 4))) for mask in (one, other)]
    assert metric(*inside) == pytest.approx(metric(one, other))
    assert metric(one.T, other.T) == pytest.approx(metric(one, other))


def ellipse(radius_row, radius_column, shift=0):
    rows, columns = np.mgrid[:352, :352] - 176
    return ((rows - shift) / radius_row) ** 2 + (columns / radius_column) ** 2 < 1


@pytest.mark.parametrize(
    ("predicted", "of_dice", "of_released", "of_nsd"),
    [
        (ellipse(54, 40.5), 0.897, 0.941, 0.00),
        (ellipse(60, 45, shift=3), 0.968, 0.997, 0.58),
        (np.roll(ellipse(60, 45), 3, axis=1), 0.958, 0.994, 0.30),
        (ellipse(60, 45, shift=6), 0.937, 0.970, 0.40),
    ],
    ids=["a tenth smaller", "3 px off", "3 px off the shorter way", "6 px off"],
)
def test_worked_examples(predicted, of_dice, of_released, of_nsd):
    """They show what the released number misses: a boundary that is wrong everywhere still scores 0.94."""
    truth = ellipse(60, 45)
    assert dice(predicted, truth) == pytest.approx(of_dice, abs=5e-4)
    assert nsd_released(predicted, truth) == pytest.approx(of_released, abs=5e-4)
    assert nsd(predicted, truth) == pytest.approx(of_nsd, abs=5e-3)


def test_nsd_sees_only_boundaries():
    square = np.zeros((64, 64), bool)
    square[20:40, 20:40] = True
    assert nsd(square, np.roll(square, 2, 1)) == 1.0
    assert nsd(square, np.roll(square, 3, 1)) < 1.0
    hollow = square.copy()
    hollow[26:34, 26:34] = False
    assert nsd(square, hollow) == pytest.approx((76 + 76) / (76 + 76 + 4 * 8))


def test_released_averages_round_each_image_first():
    assert released_mean([0.12344, 0.12344, 0.12348]) == pytest.approx((0.1234 + 0.1234 + 0.1235) / 3, abs=1e-12)


@pytest.mark.parametrize("metric", [dice, iou, nsd, nsd_released, hd95])
def test_masks_that_are_none_are_refused(metric):
    with pytest.raises(BadInput, match=r"\(4, 5\) and \(5, 4\)"):
        metric(np.zeros((4, 5), bool), np.zeros((5, 4), bool))
    with pytest.raises(BadInput, match="float64"):
        metric(np.zeros((4, 5)), np.zeros((4, 5), bool))
    with pytest.raises(BadInput, match="one pixel"):
        metric(np.zeros((0, 5), bool), np.zeros((0, 5), bool))


# ---- probabilities ------------------------------------------------------------------------------------------------


def chances(seed, shape=(6, 7)):
    """Probabilities that include both ends, and a truth that follows them."""
    rng = np.random.default_rng(seed)
    p = rng.random(shape).astype(np.float32)
    p[0, :2] = 0, 1
    return p, rng.random(shape) < p


def reliability_of(*pairs):
    reliability = Reliability()
    for pair in pairs:
        reliability.add(*pair)
    return reliability


def test_calibration_error_equals_brute_force():
    pairs = [chances(seed) for seed in range(3)]
    p, truth = (np.concatenate([pair[k].ravel() for pair in pairs]) for k in (0, 1))
    expected = 0.0
    for k in range(N_BINS):
        chosen = (p >= k / N_BINS) & ((p < (k + 1) / N_BINS) | (k == N_BINS - 1))
        if chosen.any():
            expected += chosen.mean() * abs(p[chosen].mean() - truth[chosen].mean())
    assert reliability_of(*pairs).ece() == pytest.approx(expected, abs=1e-6)


def test_bins_equal_those_of_a_library():
    p, truth = chances(0, (40, 40))
    bins = reliability_of((p, truth)).bins()
    tensors = torch.from_numpy(p)[None, None], torch.from_numpy(truth)[None, None]
    mean_p, share, count = (values[0, 0].numpy() for values in calibration_binning(*tensors, num_bins=N_BINS))
    assert [b.n_pixels for b in bins] == count.tolist()
    np.testing.assert_allclose([b.probability for b in bins], mean_p, rtol=1e-5)
    np.testing.assert_allclose([b.foreground for b in bins], share, rtol=1e-5)
    assert (bins[0].lower, bins[-1].upper) == (0.0, 1.0)
    assert all(b.lower <= b.probability <= b.upper for b in bins)


def test_bins_without_pixels_say_so():
    bins = reliability_of((np.full((2, 2), 0.99, np.float32), np.ones((2, 2), bool))).bins()
    assert [b.n_pixels for b in bins] == [0] * (N_BINS - 1) + [4]
    assert bins[0].probability is None and bins[0].foreground is None and bins[-1].foreground == 1.0


def test_calibration_error_of_the_right_and_of_the_wrong():
    truth = np.indices((10, 10)).sum(0) % 2 == 0
    assert reliability_of((truth.astype(np.float32), truth)).ece() == 0.0
    assert reliability_of((1 - truth.astype(np.float32), truth)).ece() == 1.0
    assert reliability_of((np.full((10, 10), 0.5, np.float32), truth)).ece() == 0.0


def test_brier_equals_its_definition_and_its_landmarks():
    p, truth = chances(1)
    assert brier(p, truth) == pytest.approx(
        np.mean([(float(a) - b) ** 2 for a, b in zip(p.ravel(), truth.ravel(), strict=True)])
    )
    assert brier(truth.astype(np.float32), truth) == 0.0
    assert brier(1 - truth.astype(np.float32), truth) == 1.0
    assert brier(np.full(truth.shape, 0.5, np.float32), truth) == 0.25


@pytest.mark.parametrize("measure", [brier, lambda p, truth: Reliability().add(p, truth)])
@pytest.mark.parametrize("wrong", [np.nan, -0.01, 1.01])
def test_what_is_no_probability_is_refused(measure, wrong):
    p, truth = chances(0)
    p[3, 3] = wrong
    with pytest.raises(BadInput, match=r"\[0, 1\]"):
        measure(p, truth)
    with pytest.raises(BadInput, match="own shape"):
        measure(p, truth.T)


def test_no_pixel_has_no_calibration_error():
    with pytest.raises(BadInput, match="add an image"):
        Reliability().ece()


# ---- confidence ---------------------------------------------------------------------------------------------------


def slow_confidence(p):
    """From the definition, pixel by pixel."""
    doubt = {place: sum(-q * np.log2(q) for q in (p[place], 1 - p[place]) if q > 0) for place in np.ndindex(p.shape)}
    mask = np.argwhere(p >= 0.5)
    width = max(1, round(0.02 * min(p.shape)))
    decided = [d for place, d in doubt.items() if len(mask) and np.hypot(*(mask - place).T).min() <= width]
    if len(decided) < 0.02 * p.size:
        decided = sorted(doubt.values())[-int(np.ceil(0.02 * p.size)) :]
    return 1 - np.mean(decided)


@pytest.mark.parametrize("level", [-9.0, -3.0, 0.0, 3.0])
@pytest.mark.parametrize("shape", [(12, 15), (80, 75)])
def test_confidence_equals_its_definition(level, shape):
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 3) * 20 + level
    p = (1 / (1 + np.exp(-field))).astype(np.float32)
    p[0, 0], p[-1, -1] = 0, 1
    for probabilities in (p, p * 0.49):
        assert confidence(probabilities) == pytest.approx(slow_confidence(probabilities.astype(float)), abs=1e-6)


@pytest.mark.parametrize("level", [-6.0, 0.0, 3.0])
def test_confidence_is_the_score_the_queue_ranks_by_turned_round(level):
    field = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(96, 96)), 5) * 40 + level
    draws = (1 / (1 + np.exp(-field)))[None]
    score = strategies.get("entropy").score(draws)
    assert confidence(draws.mean(0)) == pytest.approx(1 - score / np.log(2))


def test_confidence_of_certain_maps_and_of_the_least_certain():
    assert confidence(SOME.astype(np.float32)) == confidence(EMPTY.astype(np.float32)) == 1.0
    assert confidence(np.full((5, 5), 0.5, np.float32)) == 0.0
    suspicion = np.zeros((5, 5), np.float32)
    suspicion[2, 2] = 0.4
    assert 0 < confidence(suspicion) < confidence(suspicion / 2) < 1


def slow_aurc(risks, confidences):
    """By definition: sort, and at every coverage take the mean of what is kept. No ties."""
    kept = [risk for _, risk in sorted(zip(confidences, risks, strict=True), reverse=True)]
    return sum(sum(kept[:k]) / k for k in range(1, len(kept) + 1)) / len(kept)


def test_aurc_equals_its_definition_in_whatever_order_images_come():
    rng = np.random.default_rng(0)
    risks, confidences = rng.random(9), rng.random(9)
    order = rng.permutation(9)
    assert aurc(risks, confidences) == pytest.approx(slow_aurc(risks, confidences))
    assert aurc(risks[order], confidences[order]) == pytest.approx(slow_aurc(risks, confidences))
    assert risk_coverage(risks, confidences)[-1] == pytest.approx(risks.mean())


def test_ties_are_worth_the_mean_over_their_orders():
    rng = np.random.default_rng(1)
    risks, confidences = rng.random(7), np.array([1, 3, 3, 3, 2, 1, 1.0])
    orders = [slow_aurc(risks, confidences + 1e-6 * rng.permutation(7)) for _ in range(4000)]
    assert aurc(risks, confidences) == pytest.approx(np.mean(orders), abs=3e-3)


def test_aurc_between_the_best_order_the_worst_and_none():
    risks = np.random.default_rng(0).random(20)
    assert aurc(risks, -risks) < aurc(risks, np.zeros(20)) < aurc(risks, risks)
    assert aurc(risks, np.zeros(20)) == pytest.approx(risks.mean())
    assert all(aurc(risks, -risks) <= aurc(risks, np.random.default_rng(s).random(20)) for s in range(20))


@pytest.mark.parametrize("confidences", [[], [0.1], [np.nan, 0.1], [0.1, np.inf], [[0.1, 0.2]]])
def test_aurc_refuses_what_has_no_order(confidences):
    with pytest.raises(BadInput, match="confidences"):
        aurc([0.1, 0.2], confidences)
    with pytest.raises(BadInput):
        aurc(confidences, [0.1, 0.2])
