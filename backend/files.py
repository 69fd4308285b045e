"""Bytes on disk, named by their sha256: images, masks and checkpoints. Writing twice is writing once."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from backend.errors import BadImage, DamagedFile, MissingFile
from model import ModelError, read_image

Kind = Literal["images", "masks", "checkpoints"]

_ORIENTATION = 0x0112  # the Exif tag
_ON_ITS_SIDE = (5, 6, 7, 8)
_TURN_A_PNG = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")


class Files:
    """The folder of everything that is too large for the database."""

    def __init__(self, folder: Path, *, max_image_pixels: int) -> None:
        self.folder = folder
        self.max_image_pixels = max_image_pixels

    def path(self, kind: Kind, sha256: str) -> Path:
        """Where the bytes of that name lie; MissingFile when they do not."""
        path = self._place(kind, sha256)
        if not path.is_file():
            raise MissingFile(f"{kind} {sha256} is not in {self.folder}; restore the data folder from its backup")
        return path

    def has(self, kind: Kind, sha256: str) -> bool:
        return self._place(kind, sha256).is_file()

    def put(self, kind: Kind, content: bytes) -> str:
        """Store bytes; returns their sha256. Safe against crashes: the name appears with the whole content."""
        sha256 = hashlib.sha256(content).hexdigest()
        place = self._place(kind, sha256)
        if not place.is_file():
            _write_whole(place, content)
        return sha256

    def put_image(self, content: bytes) -> str:
        """Store an image that a trainer can read later; BadImage when it is too large, broken or none."""
        sha256 = hashlib.sha256(content).hexdigest()
        if self.has("images", sha256):
            return sha256
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".image-") as probe:
            probe.write(content)
            probe.flush()
            try:
                read_image(Path(probe.name), self.max_image_pixels)
            except ModelError as error:
                raise BadImage(
                    str(error).replace(f"image {probe.name}", "the image").replace(probe.name, "it")
                ) from error
        return self.put("images", content)

    def image(self, sha256: str) -> np.ndarray:
        """The image, (H, W, 3) uint8, image frame."""
        return read_image(self.path("images", sha256), self.max_image_pixels)

    def image_size(self, sha256: str) -> tuple[int, int]:
        """Height and width in pixels, image frame, without decoding: a webhook waits for it, and has a second."""
        path = self.path("images", sha256)
        with Image.open(path) as image:
            turned = _may_be_turned(image, path) and image.getexif().get(_ORIENTATION, 1) in _ON_ITS_SIDE
            return (image.width, image.height) if turned else (image.height, image.width)

    def mask_size(self, sha256: str) -> tuple[int, int]:
        """Height and width in pixels, from the header of a mask we wrote."""
        with Image.open(self.path("masks", sha256)) as image:
            return image.height, image.width

    def put_mask(self, mask: np.ndarray) -> str:
        """Store a boolean mask (H, W) as a one-bit PNG."""
        buffer = io.BytesIO()
        Image.fromarray(mask).save(buffer, format="PNG")
        return self.put("masks", buffer.getvalue())

    def put_checkpoint(self, path: Path) -> str:
        return self.put("checkpoints", path.read_bytes())

    def checkpoint(self, sha256: str) -> Path:
        """The checkpoint's path; DamagedFile when its bytes have changed."""
        path = self.path("checkpoints", sha256)
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise DamagedFile(f"checkpoint {sha256} has changed on disk; restore it from a backup")
        return path

    def work(self, name: str) -> Path:
        """A folder for unfinished work, such as the training state of a round."""
        folder = self.folder / "work" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _place(self, kind: Kind, sha256: str) -> Path:
        return self.folder / kind / sha256[:2] / sha256


def _may_be_turned(image: Image.Image, path: Path) -> bool:
    # Pillow turns the size of a TIFF itself, and decodes the whole of a PNG to look for an orientation behind its
    # pixels, where most have none.
    if image.format == "PNG":
        content = path.read_bytes()
        return any(mark in content for mark in _TURN_A_PNG)
    return image.format != "TIFF"


def _write_whole(place: Path, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=place.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, place)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
