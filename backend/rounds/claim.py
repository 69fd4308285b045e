"""A round in one pair of hands: a claim in the database, kept alive by a heartbeat."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from backend.context import Context
from backend.errors import ClaimLost, Interrupted
from backend.store import Session, rounds

log = logging.getLogger(__name__)


def new_owner() -> str:
    """A name for this process that says where it runs and that no other, past or coming, shares."""
    return f"{socket.gethostname()[:30]}:{os.getpid()}:{uuid4().hex[:16]}"


class Claim:
    """Context manager around the work on one round. `taken` says whether the database gave it to us.

    A thread renews the claim and writes the progress, so that neither depends on how long one batch takes.
    """

    def __init__(self, ctx: Context, round_id: int, stop: threading.Event) -> None:
        self.ctx = ctx
        self.round_id = round_id
        self.owner = new_owner()
        self.taken = False
        self._stop = stop
        self._lost = threading.Event()
        self._left = threading.Event()
        self._progress: dict[str, Any] | None = None
        self._lease_seconds = ctx.settings.lease_seconds
        self._beat_seconds = min(1.0, self._lease_seconds / 4)
        self._thread = threading.Thread(target=self._keep_alive, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        with self.ctx.store.begin() as s:
            self.taken = rounds.claim(s, self.round_id, self.owner, self._lease_seconds)
        if self.taken:
            self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._left.set()
        if self.taken:
            self._thread.join()

    def report(self, step: str, done: int, total: int, **more: Any) -> None:
        """Say how far the step is. Raises ClaimLost or Interrupted when the work must stop here."""
        if self._lost.is_set():
            raise ClaimLost(f"round {self.round_id} was cancelled or taken over by another process")
        if self._stop.is_set():
            raise Interrupted(f"asked to stop during {step} of round {self.round_id}; it goes on from there later")
        self._progress = {"step": step, "done": done, "total": total, **more}

    def confirm(self) -> None:
        """Ask the database itself, right before something that others see: ClaimLost when the round is not ours."""
        if self._lost.is_set() or not self._renew():
            self._lost.set()
            raise ClaimLost(f"round {self.round_id} was cancelled or taken over by another process")

    def hold(self, s: Session) -> None:
        """Make the caller's transaction part of the claim: it happens only if the round is ours. ClaimLost."""
        if self._lost.is_set() or not rounds.beat(s, self.round_id, self.owner, self._lease_seconds, None):
            self._lost.set()
            raise ClaimLost(f"round {self.round_id} was cancelled or taken over by another process")

    def _keep_alive(self) -> None:
        last = 0.0
        while not self._left.wait(self._beat_seconds / 4):
            if time.monotonic() - last < self._beat_seconds:
                continue
            last = time.monotonic()
            if not self._beat():
                self._lost.set()
                return

    def _beat(self) -> bool:
        try:
            return self._renew()
        except Exception:
            # The database may be restarting; the lease decides how long that may take.
            log.exception("no heartbeat for round %s", self.round_id)
            return True

    def _renew(self) -> bool:
        with self.ctx.store.begin() as s:
            return rounds.beat(s, self.round_id, self.owner, self._lease_seconds, self._timed_progress())

    def _timed_progress(self) -> dict[str, Any] | None:
        progress = self._progress
        return None if progress is None else progress | {"at": self.ctx.now().isoformat()}
