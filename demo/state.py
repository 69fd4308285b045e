"""Where the demo keeps what it writes: a fresh folder for each run, and only one run at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.errors import DemoRunning


@contextmanager
def fresh_run(state_dir: Path) -> Iterator[Path]:
    """An empty folder for this run; what earlier runs left is deleted. Raises DemoRunning when one still runs.

    A folder of its own, because a process of a demo that was killed may still be writing to the old one.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "lock").open("a") as lock:
        try:
            # Released by the kernel whenever the demo ends, however it ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DemoRunning(f"a demo is running in {state_dir}; stop it, or choose another --state") from error
        for earlier in state_dir.glob("run-*"):
            shutil.rmtree(earlier, ignore_errors=True)
        run = state_dir / f"run-{os.getpid()}"
        run.mkdir()
        yield run
