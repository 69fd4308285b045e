"""One training at a time per device: a lock that the operating system frees when its holders are gone."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.errors import DeviceBusy

# Windows has no such locks: one worker a device is then up to who starts them.
if sys.platform != "win32":
    import fcntl


@contextmanager
def held(folder: Path, device: str) -> Iterator[int | None]:
    """Hold a device of this machine; DeviceBusy when another process does.

    Gives the file descriptor that is the lock. A child that inherits it holds the lock as well, so the device counts as
    busy until the last of them has ended, however it ended. None where the system knows no such locks.
    """
    if sys.platform == "win32":
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    # Two workers that each see one GPU, under the same name, are told apart by which one it is.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    name = "".join(c if c.isalnum() else "-" for c in f"{socket.gethostname()}-{device}-{visible}")
    with (folder / f"{name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DeviceBusy(f"another process trains on {device}; the round waits for it") from None
        yield file.fileno()
