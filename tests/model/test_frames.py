"""Laws of the two frames: a place keeps its place, padding stays outside, and pixels are what other libraries make."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model import BadInput, ModelConfig
from model.frames import Placement, as_shares, mask_to_model_frame, to_image_frame, to_model_frame

SIZE = 48
FITS = ["squash", "letterbox"]
SHAPES = st.tuples(st.integers(1, 700), st.integers(1, 700))


def config(**changes):
    return ModelConfig(image_size_px=SIZE, **changes)


def noise(shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def blob(shape, seed=0):
    """An ellipse of a tenth to a third of each side, well inside (H, W)."""
    rng = np.random.default_rng(seed)
    radii = np.array(shape) * rng.uniform(0.1, 0.3, 2)
    centre = np.array(shape) * rng.uniform(0.35, 0.65, 2)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 < 1


@pytest.mark.parametrize("fit", FITS)
@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 9))
def test_a_place_goes_to_the_other_frame_and_back(fit, shape, seed):
    place = Placement.of(shape, config(fit=fit))
    places = np.random.default_rng(seed).uniform(-0.5, np.array(shape) - 0.5, (20, 2))
    there = place.to_model(places)
    np.testing.assert_allclose(place.to_image(there), places, atol=1e-9)
    np.testing.assert_allclose(place.to_model(place.to_image(there)), there, atol=1e-9)
    # The edges of the image are the edges of its rectangle.
    edges = place.to_model(np.array([(-0.5, -0.5), (shape[0] - 0.5, shape[1] - 0.5)]))
    corner = (place.top + place.rows, place.left + place.columns)
    np.testing.assert_allclose(edges + 0.5, [(place.top, place.left), corner], atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES)
def test_a_letterbox_is_in_the_middle_and_keeps_the_shape(shape):
    place = Placement.of(shape, config(fit="letterbox"))
    assert max(place.rows, place.columns) == SIZE and min(place.rows, place.columns) >= 1
    for start, length in ((place.top, place.rows), (place.left, place.columns)):
        assert 0 <= SIZE - (start + length) - start <= 1
    scale = SIZE / max(shape)
    for length, side in ((place.rows, shape[0]), (place.columns, shape[1])):
        assert abs(length - side * scale) <= 0.5 or length == 1
    assert place.covered().sum() == place.rows * place.columns


def test_a_squashed_image_covers_everything():
    assert Placement.of((3, 500), config()).covered().all()


@pytest.mark.parametrize("shrinking", ["average", "point"])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(200, 150), (90, 400), (31, 20), (480, 480)])
def test_a_mask_comes_back_to_its_place(shape, fit, shrinking):
    settings_ = config(fit=fit, shrinking=shrinking)
    for seed in range(4):
        mask = blob(shape, seed)
        place = Placement.of(shape, settings_)
        small = mask_to_model_frame(mask, settings_)
        assert small.dtype == np.bool_ and not small[~place.covered()].any()
        back = to_image_frame(torch.from_numpy(small[place.inside]).float(), place).numpy()
        assert back.shape == shape
        # Taking single pixels, as OpenCV does, may lose half of one of the coarser frame's.
        pixel = np.array(shape) / (place.rows, place.columns)
        shift = np.argwhere(back >= 0.5).mean(0) - np.argwhere(mask).mean(0)
        assert (np.abs(shift) <= 0.25 * np.maximum(pixel, 1) if shrinking == "average" else 0.75 * pixel).all()


def test_image_and_mask_share_their_frame():
    mask = blob((120, 300), 1)
    for fit in FITS:
        picture = to_model_frame((mask * 255).astype(np.uint8), config(fit=fit))[..., 0] >= 128
        np.testing.assert_array_equal(picture, mask_to_model_frame(mask, config(fit=fit)))


def test_a_mask_is_true_where_most_of_the_area_is():
    mask = np.zeros((SIZE * 4, SIZE * 4), np.bool_)
    mask[:, : 4 * 10 + 3] = True  # three quarters of the eleventh column
    np.testing.assert_array_equal(mask_to_model_frame(mask, config()).all(0), np.arange(SIZE) < 11)


@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full_masks_stay_so(value):
    mask = np.full((70, 30), value)
    for fit in FITS:
        inside = Placement.of(mask.shape, config(fit=fit)).covered()
        np.testing.assert_array_equal(mask_to_model_frame(mask, config(fit=fit)), inside & value)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(100, 61, 3), (61, 100), (20, 31, 1), (300, 7, 3)])
def test_averaging_is_what_pillow_does(shape, fit):
    image = noise(shape)
    place = Placement.of(shape, config(fit=fit))
    whole = Image.fromarray(image.reshape(shape[:2]) if image.size == shape[0] * shape[1] else image).convert("RGB")
    expected = Image.new("RGB", (SIZE, SIZE))
    expected.paste(whole.resize((place.columns, place.rows), Image.Resampling.BILINEAR), (place.left, place.top))
    np.testing.assert_array_equal(to_model_frame(image, config(fit=fit)), np.asarray(expected))


@pytest.mark.parametrize("shape", [(100, 61, 3), (33, 96, 3), (20, 31, 3), (480, 640, 3), (1, 5, 3)])
def test_points_are_what_opencv_takes(shape):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is the reference here")
    image, mask = noise(shape), noise(shape[:2], seed=1) > 127
    ours = to_model_frame(image, config(shrinking="point"))
    theirs = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    # OpenCV rounds its weights to 11 bits.
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    nearest = cv2.resize(mask.astype(np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(mask_to_model_frame(mask, config(shrinking="point")), nearest > 0)


def test_shrinking_decides_how_many_pixels_have_a_say():
    average, point = (to_model_frame(noise((480, 480)), config(shrinking=how)) for how in ("average", "point"))
    # The mean of a hundred pixels varies a tenth as much, that of the four about a place half.
    assert average.std() < 12
    assert point.std() > 25


@pytest.mark.parametrize("fit", FITS)
def test_the_padding_of_an_image_is_black_and_nothing_else_is(fit):
    white = np.full((30, 90, 3), 255, np.uint8)
    framed = to_model_frame(white, config(fit=fit))
    covered = Placement.of(white.shape, config(fit=fit)).covered()
    assert (framed[covered] == 255).all() and (framed[~covered] == 0).all()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shrinking", ["average", "point"])
def test_sixteen_bits_are_eight_and_more(fit, shrinking):
    settings_ = config(fit=fit, shrinking=shrinking)
    image = noise((90, 130, 3))
    eight, sixteen = (to_model_frame(i, settings_) for i in (image, image.astype(np.uint16) * 257))
    assert eight.dtype == np.uint8 and sixteen.dtype == np.uint16
    # Pillow rounds 8 bits once an axis.
    assert np.abs(as_shares(eight) - as_shares(sixteen)).max() <= 1.01 / 255
    faint = np.tile(np.arange(0, 200, dtype=np.uint16), (150, 1)) + 30_000  # less than one grey level of 8 bits
    assert len(np.unique(to_model_frame(faint, settings_))) > 20
    swapped = faint.astype(faint.dtype.newbyteorder())
    assert to_model_frame(swapped, settings_).dtype == np.uint16  # what torch takes
    np.testing.assert_array_equal(to_model_frame(swapped, settings_), to_model_frame(faint, settings_))


def test_shares_are_of_the_full_range_of_the_type():
    np.testing.assert_array_equal(as_shares(np.array([0, 51, 255], np.uint8)), np.array([0, 0.2, 1], np.float32))
    np.testing.assert_array_equal(as_shares(np.array([0, 13107, 65535], np.uint16)), np.array([0, 0.2, 1], np.float32))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shrinking", ["average", "point"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_one_pixel_fills_the_frame(fit, shrinking, dtype):
    image = np.array([[[10, 20, 30]]], dtype)
    framed = to_model_frame(image, config(fit=fit, shrinking=shrinking))
    assert framed.shape == (SIZE, SIZE, 3) and (framed == (10, 20, 30)).all()
    place = Placement.of(image.shape, config(fit=fit))
    assert to_image_frame(torch.full((SIZE, SIZE), 0.3), place) == pytest.approx(0.3)


def test_an_image_is_left_as_it_was_and_need_not_be_contiguous():
    image = noise((60, 80, 3))
    view = image[::-1, ::2]
    view.flags.writeable = False
    np.testing.assert_array_equal(to_model_frame(view, config()), to_model_frame(view.copy(), config()))


def test_a_map_is_averaged_where_pixels_become_fewer():
    place = Placement.of((6, 12), config())
    fine = torch.from_numpy(np.random.default_rng(0).random((SIZE, SIZE), np.float32))
    small = to_image_frame(fine, place)
    assert small.std() < 0.25 * fine.std()
    np.testing.assert_allclose(to_image_frame(torch.full((SIZE, SIZE), 0.7), place), 0.7, rtol=1e-6)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4)), "float64.*full range"),
        (np.zeros((4, 4), np.bool_), "bool"),
        (np.zeros((4, 4), np.int16), "int16"),
        (np.zeros((4, 4), np.uint32), "uint32"),
        ([[0]], "list"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\).*alpha"),
        (np.zeros((4, 4, 4), np.uint8), "alpha.*last channel"),
        (np.zeros((4, 4, 5), np.uint8), r"\(4, 4, 5\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "one image at a time"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        (np.zeros((0, 4), np.uint8), "at least one pixel"),
    ],
)
def test_what_is_no_image_is_refused_with_a_cure(image, message):
    with pytest.raises(BadInput, match=message):
        to_model_frame(image, config())


@pytest.mark.parametrize(
    "mask", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 1), np.bool_), np.zeros((0, 4), np.bool_), [[True]]]
)
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(BadInput, match="bool array"):
        mask_to_model_frame(mask, config())


def test_a_placement_is_a_plain_value():
    assert Placement.of((4, 8), config()) == Placement.of((4, 8), dataclasses.replace(config(), channels="bgr"))
