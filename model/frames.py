"""Between the two frames: the image's own H × W pixels, and the S × S pixels the network sees.

Squashed, an image covers the whole of the model frame; letterboxed, it keeps its shape and covers a rectangle in the
middle, the rest of the frame being black padding. Both align the edges of pixels with the edges of pixels, so that one
straight line per axis takes a place to the other frame and back. Nothing of the padding is ever part of an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from model.config import ModelConfig
from model.errors import BadInput

Pixels = NDArray[np.unsignedinteger[Any]]
"""uint8 or uint16."""


@dataclass(frozen=True)
class Placement:
    """Where an image of height × width pixels lies in a model frame of size × size: a rectangle, given by its first
    row and column and how many there are of each. Places are (row, column), pixel centres at whole numbers."""

    height: int
    width: int
    size: int
    top: int
    left: int
    rows: int
    columns: int

    @classmethod
    def of(cls, shape: tuple[int, ...], config: ModelConfig) -> Placement:
        """For an image of shape (H, W, …). `config` must be complete."""
        (height, width), size = shape[:2], cast(int, config.image_size_px)
        if config.fit == "squash":
            return cls(height, width, size, 0, 0, size, size)
        longest = max(height, width)
        # Even the thinnest image keeps a row and a column to be seen by.
        rows, columns = (max(1, round(side * size / longest)) for side in (height, width))
        return cls(height, width, size, (size - rows) // 2, (size - columns) // 2, rows, columns)

    @property
    def inside(self) -> tuple[slice, slice]:
        """The rectangle as an index into an (S, S) map."""
        return slice(self.top, self.top + self.rows), slice(self.left, self.left + self.columns)

    def to_model(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places (n, 2) in the image frame → the same in the model frame."""
        return (places + 0.5) * self._stretch - 0.5 + (self.top, self.left)

    def to_image(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places (n, 2) in the model frame → the same in the image frame; padding lies outside the image."""
        return (places - (self.top, self.left) + 0.5) / self._stretch - 0.5

    @property
    def _stretch(self) -> NDArray[np.float64]:
        return np.array([self.rows / self.height, self.columns / self.width])

    def covered(self) -> NDArray[np.bool_]:
        """(S, S), True where the image is and False where only padding is."""
        whole = np.zeros((self.size, self.size), np.bool_)
        whole[self.inside] = True
        return whole


def to_model_frame(image: Pixels, config: ModelConfig) -> Pixels:
    """An image of any size → (S, S, 3) of the same type, RGB, black where there is no image.

    Takes uint8 or uint16 (its full range: 65535 is white), grey (H, W) or (H, W, 1) or RGB (H, W, 3). Alpha is refused,
    since nobody but its maker knows what is meant below it. Raises BadInput.
    """
    check_image(image)
    place = Placement.of(image.shape, config)
    pixels = np.ascontiguousarray(image.reshape(*image.shape[:2], -1), dtype=f"u{image.dtype.itemsize}")
    shrink = _point if config.shrinking == "point" else _average
    inner = shrink(pixels, place.rows, place.columns)
    whole = np.zeros((place.size, place.size, 3), pixels.dtype)
    whole[place.inside] = inner
    return whole


def check_image(image: object) -> None:
    """Raises BadInput, saying what to do, for what is no image to `to_model_frame`."""
    if not isinstance(image, np.ndarray) or image.dtype.kind != "u" or image.dtype.itemsize > 2:
        found = getattr(image, "dtype", type(image).__name__)
        raise BadInput(
            f"an image must be a uint8 or uint16 array, not {found}; scale it to the full range of one of them"
        )
    if image.ndim == 3 and image.shape[2] in (2, 4):
        raise BadInput(f"an image of shape {image.shape} seems to carry alpha; leave out the last channel or blend it")
    if not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))):
        raise BadInput(f"an image must be (H, W), (H, W, 1) or (H, W, 3), not {image.shape}; pass one image at a time")
    if 0 in image.shape:
        raise BadInput(f"an image must have at least one pixel, but its shape is {image.shape}; leave it out")


def mask_to_model_frame(mask: NDArray[np.bool_], config: ModelConfig) -> NDArray[np.bool_]:
    """A mask (H, W) → (S, S), False in the padding. True where most of the area is, or with `shrinking` "point" what
    the one pixel at the scaled position says, as OpenCV's nearest neighbour does. Raises BadInput."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.ndim != 2 or 0 in mask.shape:
        found = f"{getattr(mask, 'dtype', type(mask).__name__)} of shape {getattr(mask, 'shape', '?')}"
        raise BadInput(f"a mask must be a bool array (H, W) with at least one pixel, not {found}; compare it first")
    place = Placement.of(mask.shape, config)
    whole = np.zeros((place.size, place.size), np.bool_)
    if config.shrinking == "point":
        rows, columns = (
            np.minimum(np.arange(new) * (old / new), old - 1).astype(np.intp)
            for new, old in ((place.rows, place.height), (place.columns, place.width))
        )
        whole[place.inside] = mask[rows[:, None], columns]
    else:
        grey = _average(mask[:, :, None].astype(np.uint8) * 255, place.rows, place.columns)
        whole[place.inside] = grey[..., 0] >= 128
    return whole


def to_image_frame(covered: Tensor, place: Placement) -> Tensor:
    """A map (h, w) in [0, 1] over the rectangle of `place` → (H, W), its average where pixels become fewer."""
    resized = F.interpolate(
        covered[None, None].float(), (place.height, place.width), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0, 0].clamp(0, 1)


def as_shares(pixels: Pixels) -> NDArray[np.float32]:
    """Pixels of either type → float32 in [0, 1], 1 the largest value of the type."""
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def _average(pixels: Pixels, rows: int, columns: int) -> NDArray[Any]:
    """Pillow's bilinear filter over (H, W, C), wide enough that every pixel has a say. 8 bits stay on its fast path."""
    channels = np.moveaxis(pixels, 2, 0)
    if pixels.dtype == np.uint8:
        flat = pixels[..., 0] if len(channels) == 1 else pixels
        small = np.asarray(Image.fromarray(flat).resize((columns, rows), Image.Resampling.BILINEAR))
        return small.reshape(rows, columns, -1)
    images = [Image.fromarray(channel.astype(np.float32)) for channel in channels]
    return _rounded(
        np.stack([np.asarray(i.resize((columns, rows), Image.Resampling.BILINEAR)) for i in images], 2), pixels
    )


def _point(pixels: Pixels, rows: int, columns: int) -> NDArray[Any]:
    """OpenCV's INTER_LINEAR over (H, W, C): between the four pixels about the scaled position, however many there are
    between positions."""
    values = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    resized = F.interpolate(values, (rows, columns), mode="bilinear", align_corners=False)
    return _rounded(resized[0].permute(1, 2, 0).numpy(), pixels)


def _rounded(values: NDArray[np.float32], like: Pixels) -> NDArray[Any]:
    return np.rint(values).clip(0, np.iinfo(like.dtype).max).astype(like.dtype)
