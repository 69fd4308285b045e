"""Child processes that cannot outlive the demo.

Each runs in its own process group, so that stopping it also stops what it started, and writes to its own log file.
On Linux the kernel ends it when the demo itself is killed (PR_SET_PDEATHSIG), so nothing is left behind even then.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from demo.errors import ChildDied, NotInstalled, PortBusy

LOOPBACK = "127.0.0.1"
_PR_SET_PDEATHSIG = 1


def free_port() -> int:
    """A TCP port nobody listens on now, chosen by the kernel."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def require_free(port: int) -> None:
    """Raise PortBusy when somebody listens on `port` already.

    Label Studio takes the next port in silence; better to stop than to talk to a stranger.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise PortBusy(
                f"port {port} is in use ({error.strerror}); stop that program or choose another port"
            ) from error


def tail(path: Path, lines: int = 25) -> str:
    """The last lines of a text file; empty when the file is not there."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


class Child:
    """One process in its own group, logging to `log`. Use as a context manager, or start() and stop()."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.command = [str(part) for part in command]
        self.log = log
        self._env = None if env is None else dict(env)
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process; raises NotInstalled when the program is missing."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._env,
                    cwd=self._cwd,
                    start_new_session=True,
                    preexec_fn=_die_with_parent(),  # noqa: PLW1509  # calls one C function, takes no lock
                )
            except FileNotFoundError as error:
                raise NotInstalled(f"cannot start {self.name}: {self.command[0]} is not there") from error

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def returncode(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def require_running(self) -> None:
        """Raise ChildDied with the end of the log when the process has ended."""
        if not self.running:
            raise ChildDied(
                f"{self.name} ended with status {self.returncode}; the end of {self.log}:\n{tail(self.log)}"
            )

    def wait_until(
        self,
        ready: Callable[[], bool],
        *,
        timeout_seconds: float,
        on_wait: Callable[[float], None] | None = None,
        poll_seconds: float = 0.25,
    ) -> None:
        """Wait until `ready()`; raises ChildDied when the process ends first or the time runs out.

        `on_wait` is told the seconds waited so far, about once a second.
        """
        started = told = time.monotonic()
        while not ready():
            self.require_running()
            now = time.monotonic()
            if now - started > timeout_seconds:
                raise ChildDied(
                    f"{self.name} was not ready after {timeout_seconds:.0f} s; the end of {self.log}:\n{tail(self.log)}"
                )
            if on_wait is not None and now - told >= 1.0:
                told = now
                on_wait(now - started)
            time.sleep(poll_seconds)

    def stop(self, grace_seconds: float = 10.0) -> None:
        """Ask the whole group to end, then kill what is left of it. Safe to call twice, or before start()."""
        if self._process is None:
            return
        _signal_group(self._process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_seconds)
        _signal_group(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Children:
    """Everything the demo started; stopping ends the last started first."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def start(self, child: Child) -> Child:
        child.start()
        self._children.append(child)
        return child

    def require_running(self) -> None:
        for child in self._children:
            child.require_running()

    def stop(self) -> None:
        while self._children:
            self._children.pop().stop()


def _signal_group(group: int, number: int) -> None:
    # The leader was started in a session of its own, so its pid is the id of the group; a group that has
    # ended is what we want.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _die_with_parent() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    # Looked up before the fork: between fork and exec only the call itself may run.
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask_kernel
