"""What the service keeps beside its database, and the laws it keeps it by.

Files lie in a folder of this machine. With a store that machines share (WARDROUND_FILES_URL) the folder is a cache of
it: nothing counts as written before both have it, and nothing fetched is used before its bytes match its name.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from backend.errors import BadImage, DamagedFile, DiskFull, MissingFile, WardroundError
from backend.files.bucket import answering, open_store
from backend.files.folder import Folder, Kind, writing
from model import ModelError, has_several_pages, read_image

log = logging.getLogger(__name__)

T = TypeVar("T")

# Using an image writes down when, but so rarely that it costs nothing: `Stored.used_at` may be this much too early.
MARKED_EVERY_SECONDS = 3600.0

_ORIENTATION = 0x0112  # the Exif tag
_ON_ITS_SIDE = (5, 6, 7, 8)
_TURN_A_PNG = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
_PROBE = ".image-"
_LEFT_BEHIND_SECONDS = 86_400.0  # no write takes a day: what is older was left by a killed process


class ImageGone(MissingFile):
    """An image is not here, or was damaged and has been removed: whoever tries again fetches it from Label Studio."""

    http_status = 503
    retryable = True


@dataclass(frozen=True)
class Stored:
    """An image in the folder of this machine: its size in bytes; when it was last used, in seconds since the epoch."""

    sha256: str
    size: int
    used_at: float


class Files:
    """The folder of everything that is too large for the database, and the store behind it where `url` names one."""

    def __init__(self, folder: Path, *, max_image_pixels: int, url: str = "") -> None:
        self.folder = folder
        self.max_image_pixels = max_image_pixels
        self._local = Folder(folder)
        self._shared = open_store(url) if url else None

    def path(self, kind: Kind, sha256: str) -> Path:
        """Where the bytes of that name lie, fetched from the store if need be.

        Raises MissingFile (ImageGone for an image) when nobody has them, DamagedFile when the store's have changed.
        """
        place = self._local.place(kind, sha256)
        if not place.is_file():
            return self._fetch(kind, sha256)
        if kind == "images":
            _mark_used(place)
        return place

    def check(self, kind: Kind, sha256: str) -> Path:
        """The path, once its bytes are known to be the ones its name promises.

        Changed ones are fetched from the store anew. Where that cannot be, an image is removed and ImageGone, and
        anything else stays as it is and is a DamagedFile.
        """
        place = self.path(kind, sha256)
        if _is_sound(place, sha256):
            return place
        log.warning("%s %s has changed on disk", kind, sha256)
        if kind == "images":
            place.unlink(missing_ok=True)
        try:
            return self._fetch(kind, sha256)
        except ImageGone:
            raise
        except MissingFile:
            raise DamagedFile(f"{kind} {sha256} has changed on disk; restore it from a backup") from None

    def has(self, kind: Kind, sha256: str) -> bool:
        """Whether `path` would find it, here or in the store."""
        place = self._local.place(kind, sha256)
        if place.is_file():
            if kind == "images":
                _mark_used(place)  # who asks is about to read it
            return True
        with answering():
            return self._shared is not None and self._shared.has(kind, sha256)

    def put(self, kind: Kind, content: bytes) -> str:
        """Store bytes, here and in the store; returns their sha256. The name appears with the whole content."""
        sha256 = hashlib.sha256(content).hexdigest()
        if not _is_sound(self._local.place(kind, sha256), sha256):
            self._local.write(kind, sha256, content)
        with answering():
            if self._shared is not None and not self._shared.has(kind, sha256):
                self._shared.write(kind, sha256, content)
        return sha256

    def put_image(self, content: bytes) -> str:
        """Store an image that a trainer can read later; BadImage when it is too large, broken or none."""
        if not self.has("images", hashlib.sha256(content).hexdigest()):
            self._require_image(content)
        return self.put("images", content)

    def image(self, sha256: str) -> np.ndarray:
        """The image, (H, W, 3) uint8, image frame."""
        return self._decoded("images", sha256, lambda path: read_image(path, self.max_image_pixels))

    def image_size(self, sha256: str) -> tuple[int, int]:
        """Height and width in pixels, image frame, without decoding: a webhook waits for it, and has a second."""
        return self._decoded("images", sha256, _upright_size)

    def mask_size(self, sha256: str) -> tuple[int, int]:
        """Height and width in pixels, from the header of a mask we wrote."""
        return self._decoded("masks", sha256, _size)

    def put_mask(self, mask: np.ndarray) -> str:
        """Store a boolean mask (H, W) as a one-bit PNG."""
        buffer = io.BytesIO()
        Image.fromarray(mask).save(buffer, format="PNG")
        return self.put("masks", buffer.getvalue())

    def put_checkpoint(self, path: Path) -> str:
        return self.put("checkpoints", path.read_bytes())

    def checkpoint(self, sha256: str) -> Path:
        """The checkpoint's path; DamagedFile when its bytes have changed and the store has no sound ones."""
        return self.check("checkpoints", sha256)

    def work(self, name: str) -> Path:
        """A folder for unfinished work, such as the training state of a round."""
        folder = self.folder / "work" / name
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    # ------------------------------------------------------------------------------------------- making room

    def free_bytes(self) -> int:
        """Room left on the disk of the folder."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.folder).free

    def require_room(self, min_free_bytes: int) -> None:
        """Raise DiskFull when less is free."""
        free = self.free_bytes()
        if free < min_free_bytes:
            raise DiskFull(
                f"no room left in {self.folder}: {free:,} bytes are free and WARDROUND_MIN_FREE_DISK_BYTES asks for "
                f"{min_free_bytes:,}: free some space; the round goes on by itself"
            )

    def cached_images(self) -> list[Stored]:
        """Every image in the folder of this machine."""
        found = []
        for path in self._local.paths("images"):
            with contextlib.suppress(FileNotFoundError):  # another process makes room as well
                status = path.stat()
                found.append(Stored(path.name, status.st_size, status.st_mtime))
        return found

    def evict_image(self, image: Stored) -> bool:
        """Remove an image from this machine, unless somebody has used it since it was listed."""
        place = self._local.place("images", image.sha256)
        with contextlib.suppress(FileNotFoundError):
            if place.stat().st_mtime <= image.used_at:
                place.unlink()
                return True
        return False

    def checkpoints(self) -> set[str]:
        """Names of the checkpoints of this machine."""
        return self._local.names("checkpoints")

    def shared_checkpoints(self) -> set[str]:
        """Names of the checkpoints in the store; none without one."""
        with answering():
            return set() if self._shared is None else self._shared.names("checkpoints")

    def remove_checkpoint(self, sha256: str) -> None:
        """Remove a checkpoint from this machine."""
        self._local.remove("checkpoints", sha256)

    def remove_shared_checkpoint(self, sha256: str) -> None:
        """Remove a checkpoint from the store."""
        self._remove_shared("checkpoints", sha256)

    def works(self) -> list[str]:
        """Names of the folders for unfinished work."""
        return sorted(path.name for path in (self.folder / "work").glob("*") if path.is_dir())

    def remove_work(self, name: str) -> None:
        shutil.rmtree(self.folder / "work" / name, ignore_errors=True)

    def remove_leftovers(self, now: float) -> None:
        """Remove what killed processes left half written. now: seconds since the epoch."""
        for path in [*self.folder.glob(f"{_PROBE}*"), *self._local.unfinished()]:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < now - _LEFT_BEHIND_SECONDS:
                    path.unlink()

    # ------------------------------------------------------------------------------------------------ within

    def _fetch(self, kind: Kind, sha256: str) -> Path:
        with answering():
            content = None if self._shared is None else self._shared.read(kind, sha256)
        if content is None:
            raise self._missing(kind, sha256)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise self._damaged_in_store(kind, sha256)
        return self._local.write(kind, sha256, content)

    def _missing(self, kind: Kind, sha256: str) -> MissingFile:
        where = f"in {self.folder}" + ("" if self._shared is None else ", nor in the store of WARDROUND_FILES_URL")
        if kind == "images":
            return ImageGone(f"{kind} {sha256} is not {where}; it is fetched from Label Studio on the next attempt")
        return MissingFile(f"{kind} {sha256} is not {where}; restore the data folder from its backup")

    def _damaged_in_store(self, kind: Kind, sha256: str) -> WardroundError:
        what = f"{kind} {sha256} has changed in the store of WARDROUND_FILES_URL"
        if kind != "images":
            return DamagedFile(f"{what}; restore it from a backup")
        self._remove_shared(kind, sha256)  # else no machine would ever fetch a sound one
        return ImageGone(f"{what}; it is fetched from Label Studio on the next attempt")

    def _remove_shared(self, kind: Kind, sha256: str) -> None:
        with answering():
            if self._shared is not None:
                self._shared.remove(kind, sha256)

    def _require_image(self, content: bytes) -> None:
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=_PROBE) as probe:
                probe.write(content)
                probe.flush()
                try:
                    read_image(Path(probe.name), self.max_image_pixels)
                    several = has_several_pages(Path(probe.name), self.max_image_pixels)
                except ModelError as error:
                    problem = str(error).replace(f"image {probe.name}", "the image").replace(probe.name, "it")
                    raise BadImage(problem) from error
                if several:
                    raise BadImage(
                        "the image has several pages or frames, and a mask is of one; make it one task per page"
                    )

    def _decoded(self, kind: Kind, sha256: str, read: Callable[[Path], T]) -> T:
        # Hashing what can be read would cost more than reading it; what cannot deserves a second look.
        try:
            return read(self.path(kind, sha256))
        except (ModelError, OSError, SyntaxError, ValueError):
            return read(self.check(kind, sha256))


def _upright_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        turned = _may_be_turned(image, path) and image.getexif().get(_ORIENTATION, 1) in _ON_ITS_SIDE
        return (image.width, image.height) if turned else (image.height, image.width)


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.height, image.width


def _may_be_turned(image: Image.Image, path: Path) -> bool:
    # Pillow turns the size of a TIFF itself, and decodes the whole of a PNG to look for an orientation behind its
    # pixels, where most have none.
    if image.format == "PNG":
        content = path.read_bytes()
        return any(mark in content for mark in _TURN_A_PNG)
    return image.format != "TIFF"


def _is_sound(place: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(place.read_bytes()).hexdigest() == sha256
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EIO):  # removed meanwhile; a broken disk
            return False
        raise


def _mark_used(place: Path) -> None:
    with contextlib.suppress(OSError):  # evicted meanwhile, or the file of another user: no reason not to read
        if time.time() - place.stat().st_mtime > MARKED_EVERY_SECONDS:
            os.utime(place)
