"""Bytes named by their sha256: images, masks and checkpoints. Writing twice is writing once.

`files` is what everybody uses; `folder` and `bucket` are the places where bytes lie, on this machine's disk and in the
store that several machines share.
"""

from backend.files.files import MARKED_EVERY_SECONDS, Files, ImageGone, Stored
from backend.files.folder import Kind, writing

__all__ = ["MARKED_EVERY_SECONDS", "Files", "ImageGone", "Kind", "Stored", "writing"]
