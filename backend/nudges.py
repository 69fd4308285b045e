"""Messages after annotations: soon enough for whoever waits for a round, few enough for a burst of webhooks."""

from __future__ import annotations

import threading
import time

from backend.context import Context

EVERY_SECONDS = 1.0


class Nudges:
    """Has a worker look whether a round is due, at most once a second: a burst is not a hundred messages.

    The last of a burst counts as well: it may be the one that makes a round due, and a message follows it.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._next: dict[int, float] = {}
        self._waiting: set[int] = set()
        self._lock = threading.Lock()

    def give(self, project_id: int) -> None:
        with self._lock:
            now = time.monotonic()
            wait = self._next.get(project_id, now) - now
            if wait <= 0:
                self._next[project_id] = now + EVERY_SECONDS
            elif project_id in self._waiting:
                return
            else:
                self._waiting.add(project_id)
        if wait <= 0:
            self._ctx.enqueue("open_if_due", project_id)
        else:
            timer = threading.Timer(wait, self._follow, (project_id,))
            timer.daemon = True
            timer.start()

    def _follow(self, project_id: int) -> None:
        with self._lock:
            self._waiting.discard(project_id)
            self._next[project_id] = time.monotonic() + EVERY_SECONDS
        self._ctx.enqueue("open_if_due", project_id)
