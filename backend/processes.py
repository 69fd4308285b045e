"""Small matters of operating-system processes, for entry points."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask Linux to send SIGTERM when the parent dies; elsewhere the lost claim tells an orphan to stop."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked
        sys.exit("the worker is gone")


def be_polite() -> None:
    """Give way to the API and to annotators: training fills every core it finds."""
    if hasattr(os, "nice"):
        os.nice(10)


def let_waiting_threads_sleep() -> None:
    """Before torch is imported: threads that spin while they wait make a step 3-5 times slower on busy cores."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def stop_on_sigterm() -> threading.Event:
    """An event that SIGTERM and SIGINT set, so that work stops where it can be taken up again."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
