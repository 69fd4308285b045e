"""Laws of the brush code: what is painted is what comes back, and nothing broken passes for a mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from label_studio_sdk.converter import brush as sdk

from backend.label_studio import masks, polygons
from backend.label_studio.errors import BadMask, MaskSizeMismatch
from backend.label_studio.label_config import Control, LabelConfig

CONFIG = LabelConfig("image", "image", (Control("brush", "brush", ("Lesion", "Organ")),))
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))
MASKS = hnp.arrays(np.bool_, SHAPES)


def region(mask, label="Lesion", **changes):
    height, width = mask.shape
    return {
        "id": "r1",
        "from_name": "brush",
        "to_name": "image",
        "type": "brushlabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": masks.encode(mask), "brushlabels": [label]},
    } | changes


def square(height=12, width=10, top=2):
    mask = np.zeros((height, width), dtype=bool)
    mask[top : top + 3, 2:5] = True
    return mask


@given(MASKS)
def test_a_mask_survives_the_code(mask):
    assert np.array_equal(masks.decode(masks.encode(mask), *mask.shape), mask)


@given(MASKS)
def test_the_sdk_reads_what_we_write_as_0_and_255(mask):
    rgba = sdk.decode_rle(masks.encode(mask)).reshape(*mask.shape, 4)
    assert np.array_equal(rgba, np.repeat(mask[..., None], 4, axis=2) * np.uint8(255))


@given(MASKS)
def test_we_read_what_the_sdk_writes(mask):
    assert np.array_equal(masks.decode(sdk.mask2rle(mask.astype(np.uint8) * 255), *mask.shape), mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 70_000), (300, 300), (257, 64)])
@pytest.mark.parametrize("painted", [False, True])
def test_empty_and_full_masks_of_every_run_length_survive(shape, painted):
    mask = np.full(shape, painted)
    code = masks.encode(mask)
    assert np.array_equal(masks.decode(code, *shape), mask)
    assert np.array_equal(sdk.decode_rle(code) > 0, np.full(mask.size * 4, painted))


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(4))), st.integers(0, 10))
def test_soft_rims_count_from_half_cover_and_words_may_come_one_by_one(rgba, per_record):
    """The editor softens rims and may write words in full; only alpha counts."""
    rgba[0, 0, 3] = 255  # otherwise a picture of only 0 and 1 is refused
    code = sdk.encode_rle(rgba.ravel()) if per_record == 0 else in_full(rgba.ravel(), per_record)
    assert np.array_equal(masks.decode(code, *rgba.shape[:2]), rgba[..., 3] >= 128)


def test_half_cover_is_foreground_and_less_is_not():
    rgba = np.zeros((1, 4, 4), dtype=np.uint8)
    rgba[0, :, 3] = (0, 127, 128, 255)
    assert masks.decode(sdk.encode_rle(rgba.ravel()), 1, 4).tolist() == [[False, False, True, True]]


def in_full(words, per_record):
    """Code every word as it is, ``per_record`` to a record: valid, and what the SDK never writes."""
    bits = f"{len(words):032b}" + "00111" + "0010" + "0011" + "0111" + "1111"
    for start in range(0, len(words), per_record):
        record = words[start : start + per_record]
        bits += "001" + f"{len(record) - 1:04b}" + "".join(f"{word:08b}" for word in record)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


@settings(max_examples=300)
@given(st.lists(st.integers(0, 255), max_size=60), SHAPES)
def test_noise_is_a_mask_of_the_right_size_or_a_clear_error(noise, shape):
    header = [*(shape[0] * shape[1] * 4).to_bytes(4, "big"), 0b00111_001, 0b0_0011_011, 0b1_1111_000]
    try:
        mask = masks.decode(header + noise, *shape)
    except BadMask:
        return
    assert mask.shape == shape
    assert mask.dtype == np.bool_


@given(MASKS, st.data())
def test_a_truncated_code_is_refused(mask, data):
    code = masks.encode(mask)
    cut = data.draw(st.integers(0, len(code) - 1))
    with pytest.raises(BadMask):
        masks.decode(code[:cut], *mask.shape)


def test_a_mask_of_another_size_is_refused_before_anything_is_decoded():
    half = masks.encode(np.ones((128, 128), dtype=bool))
    with pytest.raises(MaskSizeMismatch, match=r"16384 pixels.*256 x 256.*natural resolution"):
        masks.decode(half, 256, 256)


def test_a_hostile_count_allocates_nothing():
    bomb = [255, 255, 255, 252, *masks.encode(square())[4:]]
    with pytest.raises(MaskSizeMismatch):
        masks.decode(bomb, 12, 10)
    with pytest.raises(BadMask, match="outside 1 to"):
        masks.decode(bomb, 32768, 32767)


@pytest.mark.parametrize("broken", [[256], [-1], [1.5], ["a"], [None]])
def test_a_code_of_anything_but_bytes_is_refused(broken):
    with pytest.raises(BadMask, match=r"0\.\.255"):
        masks.decode(masks.encode(square())[:20] + broken, 12, 10)


def test_a_mask_of_zeros_and_ones_is_refused_because_nobody_could_have_seen_it():
    invisible = sdk.mask2rle(square().astype(np.uint8))
    with pytest.raises(BadMask, match="invisibl"):
        masks.decode(invisible, 12, 10)


@pytest.mark.parametrize("mask", [np.zeros((0, 3), bool), np.zeros((2, 2)), np.zeros((2, 2, 4), bool)])
def test_only_a_bool_image_can_be_coded(mask):
    with pytest.raises(BadMask, match="bool"):
        masks.encode(mask)


def test_regions_of_one_label_are_united_and_labels_kept_apart():
    regions = [region(square(top=0)), region(square(top=6)), region(square(top=3), "Organ")]
    painted = masks.masks_of(regions, CONFIG)
    assert list(painted) == ["Lesion", "Organ"]
    assert np.array_equal(painted["Lesion"], square(top=0) | square(top=6))
    assert np.array_equal(painted["Organ"], square(top=3))


def test_regions_of_other_controls_are_ignored():
    point = {"from_name": "kp", "type": "keypointlabels", "value": {"x": 1, "y": 1}}
    choice = {"from_name": "quality", "type": "choices", "value": {"choices": ["good"]}}
    assert masks.masks_of([point, choice, region(square(), from_name="other")], CONFIG) == {}


BOTH = LabelConfig(
    "image", "image", (Control("brush", "brush", ("Lesion",)), Control("outline", "polygon", ("Lesion", "Organ")))
)


def outline(mask, label="Lesion", **changes):
    [points] = polygons.encode(mask)
    value = {"points": points, "closed": True, "polygonlabels": [label]}
    return region(mask, from_name="outline", type="polygonlabels", value=value | changes.pop("value", {})) | changes


def test_brushes_and_polygons_of_one_label_are_united():
    regions = [region(square(top=0)), outline(square(top=6)), outline(square(top=3), "Organ"), outline(square(top=8))]
    painted = masks.masks_of(regions, BOTH)
    assert np.array_equal(painted["Lesion"], square(top=0) | square(top=6) | square(top=8))
    assert np.array_equal(painted["Organ"], square(top=3))


@pytest.mark.parametrize(
    "changes",
    [
        {"value": {"closed": False}},
        {"value": {"points": [[1, 1], [2, 2]]}},
        {"value": {"points": None}},
        {"value": {"polygonlabels": ["Bone"]}},
        {"value": {"polygonlabels": None}},
        {"image_rotation": 90},
        {"original_width": 10**6, "original_height": 10**6},
    ],
)
def test_a_broken_polygon_names_itself(changes):
    with pytest.raises(BadMask, match="'r1'"):
        masks.masks_of([outline(square(), **changes)], BOTH)


def test_a_label_belongs_to_its_own_control():
    with pytest.raises(BadMask, match="its control has"):
        masks.masks_of([region(square(), "Organ")], BOTH)


def test_a_polygon_under_the_name_of_a_brush_is_of_no_control_that_holds_masks():
    assert masks.masks_of([outline(square(), from_name="brush")], BOTH) == {}


@pytest.mark.parametrize("size", [(10, 12), (24, 20)])
def test_a_region_of_another_size_than_its_image_names_itself_and_the_cure(size):
    with pytest.raises(MaskSizeMismatch, match=r"'r1'.*natural resolution"):
        masks.masks_of([region(square())], CONFIG, expected_size=size)


def test_regions_of_different_sizes_in_one_annotation_are_refused():
    with pytest.raises(MaskSizeMismatch):
        masks.masks_of([region(square()), region(square(24, 20))], CONFIG)


def test_a_code_that_keeps_the_size_of_a_smaller_image_is_refused():
    """What the editor sends after a prediction at half size was submitted: new size, old code."""
    with pytest.raises(MaskSizeMismatch, match="'r1'"):
        masks.masks_of([region(square(), original_width=20, original_height=24)], CONFIG)


@pytest.mark.parametrize(
    "changes",
    [
        {"original_width": None},
        {"original_height": 0},
        {"original_height": True},
        {"image_rotation": 90},
        {"value": None},
        {"value": {"format": "png", "rle": [1], "brushlabels": ["Lesion"]}},
        {"value": {"format": "rle", "rle": "x", "brushlabels": ["Lesion"]}},
        {"value": {"format": "rle", "rle": [0] * 9, "brushlabels": ["Bone"]}},
        {"value": {"format": "rle", "rle": [0] * 9, "brushlabels": []}},
        {"value": {"format": "rle", "rle": [0] * 9, "brushlabels": [["Lesion"]]}},
    ],
)
def test_a_broken_region_names_itself(changes):
    with pytest.raises(BadMask, match="'r1'"):
        masks.masks_of([region(square(), **changes)], CONFIG)
