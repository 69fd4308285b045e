"""What people paint: masks (H, W) bool in the image frame, to and from Label Studio's brush code.

The code is thi.ng's rle-pack over the flattened RGBA image: 32 bits count (= H * W * 4), 5 bits word size - 1,
four times 4 bits run size - 1, then records of 1 bit (one word repeated, or words in full), 2 bits run size,
length - 1 and the words. Foreground is 255, background 0, in all four channels.

The SDK has this codec too, and the tests hold ours to it. Ours exists because the first annotation to arrive must be
answered within Label Studio's one second: importing the SDK alone takes longer, and its loop over single bits
takes seconds on a ragged mask.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.label_studio import polygons
from backend.label_studio.errors import BadMask, MaskSizeMismatch
from backend.label_studio.label_config import Control, LabelConfig

MAX_PIXELS = 64_000_000

_WORD_SIZE = 8
_RUN_SIZES = np.array([3, 4, 8, 16])
_LONGEST_RUN = 1 << 16
_HEADER_BITS = 53
# A record starts at any bit of a byte: 7 bits, its head of 3 + 16 and its first word of 8 fit in five bytes
_WINDOW_BYTES = 5
_REDRAW = "export the mask at the image's natural resolution, or delete the region and paint it again"


def encode(mask: NDArray[np.bool_]) -> list[int]:
    """Code a mask. mask: (H, W) bool, image frame. Returns bytes as ints in 0..255. Raises BadMask."""
    if mask.dtype != np.bool_ or mask.ndim != 2 or not 0 < mask.size <= MAX_PIXELS:
        raise BadMask(
            f"a mask must be bool of shape (H, W) with 1 to {MAX_PIXELS} pixels, not {mask.dtype} {mask.shape}"
        )
    lengths, values = _split(*_runs_of(mask))
    size_index = np.searchsorted([8, 16, 256], lengths)
    run_sizes = _RUN_SIZES[size_index]
    codes = ((((4 | size_index) << run_sizes) | (lengths - 1)) << _WORD_SIZE) | values
    header = [mask.size * 4, _WORD_SIZE - 1, *(_RUN_SIZES - 1)]
    widths = np.concatenate([[32, 5, 4, 4, 4, 4], 3 + run_sizes + _WORD_SIZE])
    return np.packbits(_bits(np.concatenate([header, codes]), widths)).tolist()


def decode(rle: Sequence[int], height: int, width: int, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Read a mask of a known size, in pixels. Returns (height, width) bool, image frame.

    A pixel is foreground where its alpha is at least 128: the editor softens the rim of a stroke.
    Raises MaskSizeMismatch where the code is of another size and BadMask where it cannot be read. Memory is bounded by
    ``max_pixels`` whatever the code claims.
    """
    if height < 1 or width < 1 or height * width > max_pixels:
        raise BadMask(f"a mask of {width} x {height} px is outside 1 to {max_pixels} pixels")
    data = _to_bytes(rle)
    count = int.from_bytes(data[:4], "big")
    if count != height * width * 4:
        raise MaskSizeMismatch(f"the code holds {count // 4} pixels, the image has {width} x {height}; {_REDRAW}")
    lengths, values = _read_runs(data, count)
    if values.max() == 1:
        raise BadMask("the mask uses 0 and 1, which the editor draws invisibly; code it with 0 and 255")
    # The alpha of pixel k is word 4k + 3, so a run of words holds end // 4 - start // 4 of them
    ends = np.cumsum(lengths)
    alphas = ends // 4 - (ends - lengths) // 4
    return np.repeat(values >= 128, alphas).reshape(height, width)


def masks_of(
    regions: Iterable[Mapping[str, Any]], label_config: LabelConfig, expected_size: tuple[int, int] | None = None
) -> dict[str, NDArray[np.bool_]]:
    """The mask of each label painted in an annotation: label → (H, W) bool, the union of its brushes and polygons.

    Labels without a region are absent. Regions of controls that hold no masks (points, boxes, choices) are ignored.
    ``expected_size`` is the (height, width) of the image in pixels, where known. Raises MaskSizeMismatch where the
    regions disagree with it or with each other, BadMask where one cannot be read.
    """
    controls = {(control.name, f"{control.kind}labels"): control for control in label_config.controls}
    masks: dict[str, NDArray[np.bool_]] = {}
    for region in regions:
        control = controls.get((_text(region.get("from_name")), _text(region.get("type"))))
        if control is None:
            continue
        labels, mask = _read_region(region, control, expected_size)
        expected_size = mask.shape[0], mask.shape[1]
        for label in labels:
            masks[label] = masks[label] | mask if label in masks else mask
    return masks


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _runs_of(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    flat = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=flat.size) * 4
    return lengths, np.where(flat[starts], 255, 0)


def _split(lengths: NDArray[np.int64], values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut runs that are longer than one record can say."""
    pieces = -(-lengths // _LONGEST_RUN)
    cut = np.full(pieces.sum(), _LONGEST_RUN)
    cut[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * _LONGEST_RUN
    return cut, np.repeat(values, pieces)


def _bits(codes: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Write each code with its width in bits, most significant first, one after the other."""
    shifts = np.repeat(np.cumsum(widths), widths) - 1 - np.arange(widths.sum())
    return ((np.repeat(codes, widths) >> shifts) & 1).astype(np.uint8)


def _to_bytes(rle: Sequence[int]) -> bytes:
    try:
        data = bytes(rle)
    except (TypeError, ValueError) as error:
        raise BadMask(f"a brush code is a list of integers in 0..255 ({error}); {_REDRAW}") from error
    if len(data) * 8 < _HEADER_BITS:
        raise _truncated()
    return data


def _truncated() -> BadMask:
    return BadMask(f"the brush code ends before its last pixel; {_REDRAW}")


def _read_runs(data: bytes, count: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Lengths and values of the runs of words; ``data`` is the whole code, ``count`` what its header says."""
    sizes = _run_sizes(data)
    lengths: list[int] = []
    values = bytearray()
    position, end, filled = _HEADER_BITS, len(data) * 8, 0
    data += bytes(_WINDOW_BYTES)
    read, value_mask = int.from_bytes, (1 << _WORD_SIZE) - 1
    # One window holds a record's head and its first word. A mask has thousands of records, and an annotator waits.
    while filled < count:
        window = read(data[position >> 3 : (position >> 3) + _WINDOW_BYTES], "big")
        left = 8 * _WINDOW_BYTES - (position & 7) - 3
        head = window >> left
        size = sizes[head & 3]
        left -= size
        length = ((window >> left) & ((1 << size) - 1)) + 1
        repeated = head & 4
        words = 1 if repeated else length
        position += 3 + size
        if position + words * _WORD_SIZE > end:
            raise _truncated()
        if repeated:
            lengths.append(length)
            values.append((window >> (left - _WORD_SIZE)) & value_mask)
        else:
            lengths += [1] * length
            values += _words(data, position, length)
        position += words * _WORD_SIZE
        filled += length
    if filled != count:
        raise BadMask(f"the brush code runs past its last pixel; {_REDRAW}")
    return np.array(lengths, dtype=np.int64), np.frombuffer(values, dtype=np.uint8)


def _run_sizes(data: bytes) -> list[int]:
    header = int.from_bytes(data[:7], "big") >> 3
    word_size = ((header >> 16) & 31) + 1
    if word_size != _WORD_SIZE:
        raise BadMask(f"the brush code has words of {word_size} bits, not {_WORD_SIZE}; {_REDRAW}")
    return [((header >> shift) & 15) + 1 for shift in (12, 8, 4, 0)]


def _words(data: bytes, position: int, length: int) -> bytes:
    """The ``length`` bytes that start at bit ``position``."""
    first, offset = divmod(position, 8)
    chunk = np.frombuffer(data, dtype=np.uint8, count=length + 1, offset=first).astype(np.uint16)
    return (((chunk[:-1] << 8) | chunk[1:]) >> (8 - offset)).astype(np.uint8).tobytes()


def _read_region(
    region: Mapping[str, Any], control: Control, expected_size: tuple[int, int] | None
) -> tuple[list[str], NDArray[np.bool_]]:
    name = f"region {region.get('id', '(without id)')!r}"
    height, width = _size_of(region, name)
    if expected_size not in (None, (height, width)):
        raise MaskSizeMismatch(f"{name} is {width} x {height} px, its image {_shown(expected_size)}; {_REDRAW}")
    value = region.get("value")
    if not isinstance(value, Mapping):
        raise BadMask(f"{name} holds nothing that was drawn; draw it again")
    labels = value.get(f"{control.kind}labels")
    if not isinstance(labels, list) or not labels or any(label not in control.labels for label in labels):
        raise BadMask(f"{name} has labels {labels!r}, its control has {control.labels}; give it one of them")
    try:
        return labels, (_painted if control.kind == "brush" else _outlined)(value, height, width)
    except BadMask as error:
        raise type(error)(f"{name}: {error}") from error


def _painted(value: Mapping[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    if value.get("format") != "rle" or not isinstance(value.get("rle"), list):
        raise BadMask("it holds no brush code (value.format 'rle' and a list value.rle); paint it again")
    return decode(value["rle"], height, width)


def _outlined(value: Mapping[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    if value.get("closed") is False:
        raise BadMask("its outline is not closed; close the polygon and save again")
    return polygons.decode(value.get("points"), height, width)


def _size_of(region: Mapping[str, Any], name: str) -> tuple[int, int]:
    size = region.get("original_height"), region.get("original_width")
    if not all(type(side) is int and side > 0 for side in size):
        raise BadMask(f"{name} does not say the size of its image (original_height, original_width)")
    if region.get("image_rotation"):
        raise BadMask(f"{name} was painted on a rotated image; turn the image back and save again")
    height, width = int(size[0] or 0), int(size[1] or 0)
    if height * width > MAX_PIXELS:
        raise BadMask(f"{name} is of an image of {width} x {height} px, more than {MAX_PIXELS} pixels; {_REDRAW}")
    return height, width


def _shown(size: tuple[int, int] | None) -> str:
    return f"{size[1]} x {size[0]} px" if size else "of unknown size"
