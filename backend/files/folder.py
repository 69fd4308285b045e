"""Files in a folder, of this machine or one that machines share: a name appears with its whole content, or not."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from backend.errors import DiskFull, StoreUnreachable

Kind = Literal["images", "masks", "checkpoints"]

NEW = ".new-"  # how the name of a file begins while it is being written
NAME = re.compile(r"[0-9a-f]{64}")
_KINDS: tuple[Kind, ...] = ("images", "masks", "checkpoints")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Folder:
    """Files by kind and name. `shared`: other machines mount it too, so it is never made here."""

    def __init__(self, root: Path, *, shared: bool = False) -> None:
        self.root = root
        self._is_shared = shared

    def place(self, kind: Kind, sha256: str) -> Path:
        """Where such a file would lie; StoreUnreachable when a shared folder is not there."""
        # Making what is not mounted would fill this machine's own disk, unseen by the others.
        if self._is_shared and not self.root.is_dir():
            raise StoreUnreachable(f"WARDROUND_FILES_URL: there is no folder {self.root}; mount the share or make it")
        return self.root / kind / sha256[:2] / sha256

    def has(self, kind: Kind, sha256: str) -> bool:
        return self.place(kind, sha256).is_file()

    def read(self, kind: Kind, sha256: str) -> bytes | None:
        """The bytes, whatever they are; None when there are none."""
        try:
            return self.place(kind, sha256).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, kind: Kind, sha256: str, content: bytes) -> Path:
        """Write the bytes, through to the disk. Raises DiskFull and leaves nothing when there is no room."""
        place = self.place(kind, sha256)
        with writing(self.root):
            _make_folder(place.parent)
            handle, name = tempfile.mkstemp(dir=place.parent, prefix=NEW)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, place)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            _sync_folder(place.parent)  # else a power cut may take the name back
        return place

    def remove(self, kind: Kind, sha256: str) -> None:
        self.place(kind, sha256).unlink(missing_ok=True)

    def names(self, kind: Kind) -> set[str]:
        """The names of all files of a kind."""
        self.place(kind, "")
        return {path.name for path in self.paths(kind)}

    def paths(self, kind: Kind) -> Iterator[Path]:
        return (path for path in (self.root / kind).glob("??/*") if NAME.fullmatch(path.name))

    def unfinished(self) -> Iterator[Path]:
        """Files that are being written, or were by a process that was killed."""
        return (path for kind in _KINDS for path in (self.root / kind).glob(f"??/{NEW}*"))


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Whatever writes below `folder` inside: a disk or quota without room is DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise DiskFull(f"no room left in {folder}: free some space; the round goes on by itself") from error


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
