"""What people see of a prediction: no confetti, nothing lost that mattered, one label a pixel where that is asked."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from backend.label_studio.cleaning import THRESHOLD, cleaned, drawn, smallest_piece

LAW = settings(deadline=None)  # the first mask of all waits for an import
SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 20))
MASKS = hnp.arrays(np.bool_, SHAPES)
SMALLEST = st.integers(1, 30)
CROSS, SQUARE = ndimage.generate_binary_structure(2, 1), np.ones((3, 3))


def sizes(mask, structure):
    return np.bincount(ndimage.label(mask, structure)[0].ravel())[1:]


def holes(mask):
    return sizes(ndimage.binary_fill_holes(mask, SQUARE) & ~mask, SQUARE)


@LAW
@given(MASKS, SMALLEST)
def test_no_speck_but_the_largest_piece_and_no_pinhole_is_left(mask, smallest):
    clean = cleaned(mask, smallest)
    assert all(size >= smallest for size in sorted(sizes(clean, CROSS))[:-1])
    assert all(size >= smallest for size in holes(clean))


@LAW
@given(MASKS, SMALLEST)
def test_a_prediction_is_never_emptied_and_nothing_is_made_from_nothing(mask, smallest):
    assert cleaned(mask, smallest).any() == mask.any()


@LAW
@given(MASKS, SMALLEST)
def test_large_pieces_stay_as_they_are_but_for_their_pinholes(mask, smallest):
    pieces, _ = ndimage.label(mask)
    counts = np.bincount(pieces.ravel())
    large = (counts >= smallest)[pieces] & mask
    clean = cleaned(mask, smallest)
    assert not (large & ~clean).any()
    assert not (clean & ~ndimage.binary_fill_holes(mask, SQUARE)).any()


@LAW
@given(MASKS, SMALLEST)
def test_cleaning_twice_changes_nothing_more(mask, smallest):
    clean = cleaned(mask, smallest)
    assert np.array_equal(cleaned(clean, smallest), clean)


@LAW
@given(MASKS)
def test_without_a_limit_a_mask_is_left_alone(mask):
    assert np.array_equal(cleaned(mask, smallest_piece(mask.shape, 0.0)), mask)


@st.composite
def probabilities(draw):
    shape = draw(SHAPES)
    levels = st.sampled_from([0.0, 0.3, 0.5, 0.6, 0.9])
    return {name: draw(hnp.arrays(np.float32, shape, elements=levels)) for name in ("a", "b", "c")}


@LAW
@given(probabilities(), st.sampled_from([0.0, 0.02, 0.1]))
def test_exclusive_labels_never_share_a_pixel_and_overlapping_ones_do_not_know_each_other(maps, share):
    exclusive = drawn(maps, exclusive=True, speck_share=share)
    assert list(exclusive) == list(maps)
    assert (np.stack(list(exclusive.values())).sum(axis=0) <= 1).all()
    for label, mask in drawn(maps, exclusive=False, speck_share=share).items():
        alone = drawn({label: maps[label]}, exclusive=True, speck_share=share)[label]
        assert np.array_equal(mask, alone)


@LAW
@given(probabilities())
def test_an_exclusive_pixel_goes_to_the_most_probable_label_above_the_threshold(maps):
    exclusive = drawn(maps, exclusive=True, speck_share=0.0)
    stacked = np.stack(list(maps.values()))
    assert np.array_equal(np.logical_or.reduce(list(exclusive.values())), stacked.max(axis=0) > THRESHOLD)
    for label, mask in exclusive.items():
        assert (maps[label][mask] == stacked.max(axis=0)[mask]).all()
