"""Laws of suggestions: what a person says is in them, what a person rules out is not, whatever the model thinks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from backend.label_studio.suggesting import FLOOR, REACH_SHARE, Asked, crop_of, suggested, under, within

SHAPE = 24, 31
SEEDS = st.integers(0, 2**31)
PLACES = st.tuples(st.integers(0, SHAPE[0] - 1), st.integers(0, SHAPE[1] - 1))


def blurred(seed, sharpness=6.0):
    """A map of probabilities with hills and valleys of a few pixels."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 2.0)
    return (1 / (1 + np.exp(-sharpness * noise / noise.std()))).astype(np.float32)


def stroke(place, length=6):
    painted = np.zeros(SHAPE, bool)
    painted[place[0], place[1] : place[1] + length] = True
    return painted


def box(place, height=9, width=12):
    inside = np.zeros(SHAPE, bool)
    inside[place[0] : place[0] + height, place[1] : place[1] + width] = True
    return inside


def n_pieces(mask):
    return ndimage.label(mask)[1]


@given(SEEDS, PLACES)
@settings(deadline=None)
def test_a_point_is_in_its_piece_wherever_the_model_sees_anything(seed, place):
    probability = blurred(seed)
    found = under(probability, place)
    if probability[place] >= FLOOR:
        assert found[place]
    assert n_pieces(found) <= 1
    if probability[place] > 0.5:
        np.testing.assert_array_equal(
            found, ndimage.label(probability >= 0.5)[0] == ndimage.label(probability >= 0.5)[0][place]
        )


@given(SEEDS, st.lists(PLACES, max_size=4), st.lists(PLACES, max_size=4), st.lists(PLACES, max_size=2), st.booleans())
@settings(deadline=None)
def test_all_that_is_said_holds_together(seed, points, not_points, strokes, with_something_there):
    probability, there = blurred(seed), blurred(seed + 1) > 0.5
    painted, erased = [stroke(place) for place in strokes[:1]], [stroke(place) for place in strokes[1:]]
    asked = Asked(points=points, strokes=painted, not_points=not_points, not_strokes=erased)
    before = probability.copy(), there.copy()
    found = suggested(asked, probability, there if with_something_there else None)
    out = np.logical_or.reduce([np.zeros(SHAPE, bool), *erased])
    for place in not_points:
        out[place] = True
    assert not (found & out).any()
    for place in points:
        assert found[place] or out[place] or probability[place] < FLOOR
    for one in painted:
        assert (found | out)[one].all()
    np.testing.assert_array_equal(probability, before[0])
    np.testing.assert_array_equal(there, before[1])
    shuffled = Asked(points=points[::-1], strokes=painted, not_points=not_points[::-1], not_strokes=erased)
    np.testing.assert_array_equal(found, suggested(shuffled, probability, there if with_something_there else None))


@given(SEEDS, PLACES)
@settings(deadline=None)
def test_what_is_found_in_a_box_is_inside_it(seed, place):
    probability, inside = blurred(seed), box(place)
    found = within(probability, inside)
    assert not (found & ~inside).any()
    assert found.any() == (probability[inside].max() >= FLOOR)
    np.testing.assert_array_equal(found, suggested(Asked(found=[found]), probability))


@given(PLACES, st.floats(0, 3))
def test_a_crop_shows_the_whole_box_and_nothing_outside_the_image(place, margin):
    inside = box(place)
    crop = crop_of(inside, margin)
    shown = np.zeros(SHAPE, bool)
    shown[crop] = True
    assert shown[inside].all()
    assert all(0 <= side.start < side.stop <= length for side, length in zip(crop, SHAPE, strict=True))


def hills(*places, radius=4.0, height=0.98):
    """A round hill of probability at each place."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    nearest = np.min([np.hypot(rows - row, columns - column) for row, column in places], axis=0)
    return (height / (1 + np.exp(2 * (nearest - radius)))).astype(np.float32)


TWO = hills((8, 7), (8, 22))
ONE, OTHER = (TWO > 0.5) & (np.arange(SHAPE[1]) < 15), (TWO > 0.5) & (np.arange(SHAPE[1]) >= 15)


def test_a_point_takes_its_piece_and_leaves_the_others():
    np.testing.assert_array_equal(suggested(Asked(points=[(8, 7)]), TWO), ONE)
    np.testing.assert_array_equal(suggested(Asked(points=[(8, 7), (9, 23)]), TWO), ONE | OTHER)


def test_a_point_beside_a_piece_means_it_within_reach_only():
    steep = np.where(TWO > 0.5, 0.99, 0.001).astype(np.float32)
    reach = REACH_SHARE * np.hypot(*SHAPE)
    row = np.flatnonzero(ONE.any(1))[0]
    column = np.flatnonzero(ONE[row])[0]
    assert not suggested(Asked(points=[(int(row - reach - 2), int(column))]), steep).any()
    tall = np.kron(steep, np.ones((8, 8), np.float32))  # the same image, larger: the reach grows with it
    above = int(8 * row - 3), int(8 * column + 4)
    assert tall[above] < FLOOR
    np.testing.assert_array_equal(suggested(Asked(points=[above]), tall), np.kron(ONE, np.ones((8, 8), bool)))
    corner = np.zeros((200, 200), np.float32)  # reach: 5.7 px
    corner[100:110, 100:110] = 0.9
    for aside, meant in ((4, True), (5, False)):  # 5.7 and 7.1 px away
        assert suggested(Asked(points=[(100 - aside, 100 - aside)]), corner).any() == meant


def test_a_faint_piece_is_found_by_pointing_at_it():
    faint = hills((8, 7), height=0.3)
    found = suggested(Asked(points=[(8, 7)]), faint)
    assert found.any() and not (faint > 0.5).any()
    assert found.sum() < 3 * ONE.sum()
    assert suggested(Asked(strokes=[stroke((8, 6), 3)]), faint).sum() > 3
    assert within(faint, box((3, 2), 12, 12)).any()
    assert not suggested(Asked(points=[(8, 7)]), hills((8, 7), height=0.04)).any()


def test_a_point_that_rules_out_takes_the_piece_from_what_was_there():
    for asked in (Asked(not_points=[(8, 7)]), Asked(not_points=[(9, 8), (8, 7)])):
        np.testing.assert_array_equal(suggested(asked, TWO, ONE | OTHER), OTHER)
        np.testing.assert_array_equal(suggested(asked, TWO), OTHER)
    np.testing.assert_array_equal(suggested(Asked(not_points=[(20, 14)]), TWO, ONE), ONE)


def test_points_for_and_against_share_a_piece_between_them():
    joined = hills((8, 9), (8, 14), (8, 19))
    assert n_pieces(joined > 0.5) == 1
    found = suggested(Asked(points=[(8, 9)], not_points=[(8, 19)]), joined)
    np.testing.assert_array_equal(found, (joined >= 0.5) & (np.arange(SHAPE[1]) < 14))


def test_a_stroke_grows_to_the_pieces_it_touches_and_is_kept_where_there_are_none():
    across = stroke((8, 7), 4)
    np.testing.assert_array_equal(suggested(Asked(strokes=[across]), TWO), ONE | across)
    beyond = stroke((8, 1), 8)
    np.testing.assert_array_equal(suggested(Asked(strokes=[beyond]), TWO), ONE | beyond)
    apart = stroke((20, 5))
    np.testing.assert_array_equal(suggested(Asked(strokes=[apart]), TWO), apart)
    erased = box((0, 0), SHAPE[0], 7)
    np.testing.assert_array_equal(suggested(Asked(not_strokes=[erased]), TWO, ONE), ONE & ~erased)
    np.testing.assert_array_equal(
        suggested(Asked(strokes=[across], not_strokes=[erased]), TWO), (ONE | across) & ~erased
    )


def test_specks_and_pinholes_in_a_box_are_noise():
    probability = np.where(box((2, 2), 18, 20), 0.9, 0.01).astype(np.float32)
    probability[5, 6] = 0.1
    probability[21, 29] = 0.9
    found = within(probability, np.ones(SHAPE, bool))
    np.testing.assert_array_equal(found, box((2, 2), 18, 20))


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_the_margin_is_a_share_of_the_box(margin):
    rows, columns = crop_of(box((8, 10), 4, 10), margin)
    aside = round(4 * margin), round(10 * margin)
    assert (rows, columns) == (slice(8 - aside[0], 12 + aside[0]), slice(10 - aside[1], 20 + aside[1]))
