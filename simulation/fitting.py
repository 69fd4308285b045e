"""Masks that have the size of their images, found out before anything is trained."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import model
from simulation.dataset import Pair
from simulation.errors import BadDataset

_ORIENTATION = 0x0112  # the Exif tag
_ON_ITS_SIDE = (5, 6, 7, 8)


def require_fitting(pairs: Sequence[Pair]) -> None:
    """See that each mask has the size of its image, by what the files say at their beginning.

    A training would find it out as well, perhaps hours later. Raises BadDataset naming the pairs by their ids.
    """
    misfits = [misfit for misfit in map(_misfit, pairs) if misfit]
    if misfits:
        more = f", and {len(misfits) - 5} more" if len(misfits) > 5 else ""
        raise BadDataset(f"{'; '.join(misfits[:5])}{more}; repair them or take them out")


def _misfit(pair: Pair) -> str | None:
    """What is wrong with the sizes of a pair, if anything."""
    try:
        image, mask = _upright_size(pair.image), _header_size(pair.mask)
        if image == mask or model.read_image(pair.image).shape[1::-1] == mask:  # what is refused is read first
            return None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, model.ModelError) as error:
        return f"{pair.id} cannot be opened ({error})"
    return f"{pair.id} has an image of {image[0]} x {image[1]} px and a mask of {mask[0]} x {mask[1]} px"


def _header_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _upright_size(path: Path) -> tuple[int, int]:
    """Width and height as the model reads an image: turned the way its EXIF orientation says."""
    with Image.open(path) as image:
        width, height = image.size
        # Pillow turns the size of a TIFF itself, and decodes the whole of a PNG to look for what it hardly ever has.
        turned = image.format not in ("PNG", "TIFF") and image.getexif().get(_ORIENTATION, 1) in _ON_ITS_SIDE
        return (height, width) if turned else (width, height)
