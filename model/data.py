"""Images and masks from files, checked before they are decoded. No torch here: the service reads images with it too."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from model.errors import BadExample, ImageTooLarge, UnreadableImage

MAX_PIXELS = 64_000_000

Image8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]
T = TypeVar("T")


@dataclass(frozen=True)
class Example:
    """One labelled image: two files of the same size, the text for the label, the group it may not be split from."""

    image: Path
    mask: Path
    prompt: str
    group: str


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """The image with only its header read. Whatever goes wrong while it is open becomes an error naming the path."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images at a limit of its own; ours is checked on the next lines.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > max_pixels:
                    raise ImageTooLarge(path, f"{image.width} x {image.height} px", max_pixels)
                yield image
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(path, f"more pixels than Pillow opens ({error})", max_pixels) from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        # Pillow's decoders answer a damaged file with any of these.
        raise UnreadableImage(path, str(error) or type(error).__name__) from error


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image8:
    """An image file as uint8 (H, W, 3), turned the way its EXIF orientation says, as a browser shows it.

    16-bit grey keeps its upper byte, which is also what a browser shows. Raises ImageTooLarge from the header alone,
    before any pixel is decoded, and UnreadableImage for a missing, truncated or foreign file.
    """
    with _opened(path, max_pixels) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            grey = (np.asarray(upright).astype(np.uint16) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        if upright.mode in ("I", "F"):
            raise UnreadableImage(path, f"pixel format {upright.mode} has no agreed range; save it with 8 or 16 bits")
        return np.array(upright.convert("RGB"))


def has_several_pages(path: Path, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether a file holds several pages or frames, of which `read_image` reads the first. Raises what that raises."""
    with _opened(path, max_pixels) as image:
        # A JPEG of several pictures is a photograph with its preview or depth; browsers show the first as well.
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def read_mask(path: Path, max_pixels: int = MAX_PIXELS) -> Mask:
    """A mask file as bool (H, W): True from mid-grey up, or at 1 in a file that holds only 0 and 1.

    Raises ImageTooLarge and UnreadableImage as read_image does.
    """
    with _opened(path, max_pixels) as image:
        grey = np.asarray(image.convert("L"))
    return grey >= (1 if grey.max(initial=0) == 1 else 128)


def load_pairs(examples: Sequence[Example], convert: Callable[[Image8, Mask], T]) -> list[T]:
    """What `convert` makes of each example's image (H, W, 3) and mask (H, W); only one pair is held at a time.

    Raises BadExample naming every example that cannot be used, not just the first.
    """
    converted: list[T] = []
    bad: list[tuple[Path, str]] = []
    for example in examples:
        try:
            image, mask = read_image(example.image), read_mask(example.mask)
        except (ImageTooLarge, UnreadableImage) as error:
            bad.append((error.path, str(error)))
            continue
        if image.shape[:2] == mask.shape:
            converted.append(convert(image, mask))
        else:
            sizes = f"{mask.shape} is no mask for {example.image} of {image.shape[:2]} (height, width)"
            bad.append((example.mask, f"{example.mask} of {sizes}"))
    if bad:
        raise BadExample([path for path, _ in bad], [reason for _, reason in bad])
    return converted
