"""The embedded broker: Celery messages as files in one folder, so that nothing but Python is needed.

A subclass of kombu's filesystem transport, which loses large messages (a reader sees half a file), dies on an empty
one, and opens its table of bindings before locking it. Here a message appears by a rename, is claimed by a rename, is
set aside when it cannot be read, and bindings change under a lock and appear by a rename.

A message is deleted when a worker takes it, so a worker killed right then loses it: the database is the truth and a
message only a nudge. Local disks only: renames and locks must be atomic.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, filesystem, virtual
from kombu.utils.json import dumps, loads

SCHEME = "files"
# kombu warns about a URL without a host; there is none.
URL = f"{SCHEME}://localhost/"
UNREADABLE_FOLDER = "unreadable"

log = logging.getLogger(__name__)

# Per folder, what this process has declared. kombu keeps one for all filesystem connections, so that a second folder
# would never get its bindings written and its messages would go nowhere.
_declared: dict[str, virtual.BrokerState] = {}


def register() -> None:
    """Teach kombu the `files://` scheme; call it before Celery connects. Calling it again changes nothing."""
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"


def transport_options(folder: Path, poll_seconds: float = 0.2) -> dict[str, Any]:
    """`broker_transport_options` for messages in `folder` (made on connecting), looked at every `poll_seconds`."""
    return {
        "data_folder_in": str(folder),
        "data_folder_out": str(folder),
        "control_folder": str(folder / "bindings"),
        "polling_interval": poll_seconds,
    }


class Channel(filesystem.Channel):
    """Reads and writes the files; the folder is made when the channel opens."""

    def __init__(self, connection: Transport, **options: Any) -> None:
        super().__init__(connection, **options)
        self._folder = Path(self.data_folder_in)
        self._make_folders()

    def _make_folders(self) -> None:
        # Only the owner may read or add messages: who can add one can start work here.
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.control_folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:
        # Names sort by the wall clock: a monotonic one restarts with the machine and would put new before old.
        name = f"{time.time_ns():020d}_{uuid.uuid4().hex}.{queue}.msg"
        _appear(self._folder / name, dumps(payload).encode())

    def _get(self, queue: str) -> dict[str, Any]:
        for name in sorted(self._names(queue)):
            claimed = self._folder / f".claimed.{name}"
            try:
                (self._folder / name).rename(claimed)
            except FileNotFoundError:
                continue  # another worker was faster
            payload = self._read(claimed, name)
            if payload is not None:
                claimed.unlink()
                return payload
        raise Empty

    def _read(self, claimed: Path, name: str) -> dict[str, Any] | None:
        try:
            payload: dict[str, Any] = loads(claimed.read_text(encoding="utf-8"))
            self.Message(payload, channel=self)  # what the consumer will do, where a failure would end the worker
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self._set_aside(claimed, name, error)
            return None
        return payload

    def _set_aside(self, claimed: Path, name: str, error: Exception) -> None:
        unreadable = self._folder / UNREADABLE_FOLDER
        unreadable.mkdir(exist_ok=True)
        claimed.rename(unreadable / name)
        log.warning("message %s cannot be read (%r); it was set aside in %s", name, error, unreadable)

    def _purge(self, queue: str) -> int:
        count = 0
        for name in self._names(queue):
            with suppress(FileNotFoundError):
                (self._folder / name).unlink()
                count += 1
        return count

    def _size(self, queue: str) -> int:
        return sum(1 for _ in self._names(queue))

    def _names(self, queue: str) -> Iterator[str]:
        # Dot-files are messages being written or just claimed.
        suffix = f"{queue}.msg"
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 - polled five times a second, and names are all we need
        except FileNotFoundError:
            log.warning("%s, the folder of messages, is gone; making it anew", self._folder)
            self._make_folders()
            names = []
        return (name for name in names if not name.startswith(".") and name.partition(".")[2] == suffix)

    def get_table(self, exchange: str) -> list[filesystem.exchange_queue_t]:
        """The bindings of an exchange; none when it is unknown."""
        path = self._exchange_file(exchange)
        try:
            return [filesystem.exchange_queue_t(*row) for row in loads(path.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return []
        except (TypeError, ValueError) as error:
            # Every process declares its queues when it connects, which writes the table anew.
            log.warning("bindings in %s cannot be read (%r); starting them again", path, error)
            return []

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> list[str]:
        """The queues of a message. Where the bindings were lost with their folder, the one of its own name.

        A process declares its queues once and would never write them again: without this, every message of all
        processes would go nowhere until all had been started anew.
        """
        if exchange and self.typeof(exchange).type == "direct" and not self.get_table(exchange):
            return [routing_key]
        found: list[str] = super()._lookup(exchange, routing_key, default)
        return found

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        row = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        self._change_table(exchange, lambda rows: rows if row in rows else [row, *rows])

    def _delete(self, queue: str, exchange: str, routing_key: str, pattern: str, *_: Any, **__: Any) -> None:
        row = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        self._purge(queue)
        self._change_table(exchange, lambda rows: [other for other in rows if other != row])

    def _change_table(self, exchange: str, change: Callable[[list[Any]], list[Any]]) -> None:
        path = self._exchange_file(exchange)
        self._make_folders()
        with _locked(self.control_folder / ".lock"):
            before = self.get_table(exchange)
            after = change(before)
            if after != before or not path.exists():
                _appear(path, dumps(after).encode())


class Transport(filesystem.Transport):
    """`files://` for kombu."""

    Channel = Channel
    driver_name = SCHEME

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        self.state = _declared.setdefault(client.transport_options["data_folder_in"], virtual.BrokerState())

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Deliver one message, or raise TimeoutError.

        A worker that has prefetched all it may acknowledges only between two calls, so then the wait is one poll:
        with the whole timeout (2 s in Celery) it would take one message in two seconds.
        """
        full = any(not channel.qos.can_consume() for channel in self.channels)
        if full and self.polling_interval:
            timeout = min(timeout or self.polling_interval, self.polling_interval)
        super().drain_events(connection, timeout=timeout)


def _appear(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees a part of it; raises ChannelError and leaves nothing behind."""
    part = path.with_name(f".writing.{uuid.uuid4().hex}")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ChannelError(f"cannot write {path}: {error.strerror}; is the disk full or not writable?") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        filesystem.lock(file, filesystem.LOCK_EX)
        try:
            yield
        finally:
            filesystem.unlock(file)
