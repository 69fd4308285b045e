"""The services a cluster stands on, and what can be done to each: lock, cut, drop, double, restart."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from backend import context
from backend.tables import Lane
from demo.processes import free_port
from tests.conftest import POSTGRES_URL, RABBITMQ_URL

NAMES = ("sqlite", "postgres-redis", "postgres-rabbitmq")


class NotHereError(Exception):
    """This machine, or this stack, cannot have that fault: said aloud, never passed over."""


class Database(Protocol):
    url: str

    def lock(self, seconds: float) -> None: ...  # nobody else may write, or even read rounds
    def cut(self) -> None: ...  # every connection of everybody is gone


class Broker(Protocol):
    url: str

    def drop(self) -> None: ...  # all waiting messages are lost
    def restart(self, seconds_away: float) -> None: ...


@dataclass(frozen=True)
class Stack:
    """Where a cluster keeps its truth and sends its nudges."""

    name: str
    database: Database
    broker: Broker


@contextmanager
def stack(name: str, data_dir: Path) -> Iterator[Stack]:
    """The named services, empty; taken away again on leaving. NotHereError when the machine has none of them."""
    if name == "sqlite":
        yield Stack(name, Sqlite(data_dir / "wardround.db"), FileBroker(data_dir / "broker"))
        return
    if name not in NAMES:
        raise NotHereError(f"there is no stack {name!r}; there are {', '.join(NAMES)}")
    with _postgres() as database, _redis(data_dir) if name == "postgres-redis" else _rabbitmq() as broker:
        yield Stack(name, database, broker)


# ------------------------------------------------------------------------------------------------------- databases


class Sqlite:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.url = f"sqlite:///{path}"

    def lock(self, seconds: float) -> None:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(seconds)
        connection.execute("ROLLBACK")
        connection.close()

    def cut(self) -> None:
        raise NotHereError("SQLite has no connections that could be cut")


class Postgres:
    def __init__(self, server: str, name: str) -> None:
        self._server = server
        self._name = name
        self.url = f"{server.replace('postgresql://', 'postgresql+psycopg://', 1)}/{name}"

    def lock(self, seconds: float) -> None:
        import psycopg

        with psycopg.connect(f"{self._server}/{self._name}") as connection:
            connection.execute("LOCK TABLE rounds IN ACCESS EXCLUSIVE MODE")
            time.sleep(seconds)
            connection.rollback()

    def cut(self) -> None:
        import psycopg

        with psycopg.connect(f"{self._server}/postgres", autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (self._name,)
            )


@contextmanager
def _postgres() -> Iterator[Postgres]:
    import psycopg

    server = os.environ.get("WARDROUND_TEST_POSTGRES_URL", POSTGRES_URL).rstrip("/")
    name = f"wardround_faults_{secrets.token_hex(6)}"
    try:
        with psycopg.connect(f"{server}/postgres", autocommit=True, connect_timeout=5) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
    except psycopg.OperationalError as error:
        raise NotHereError(f"postgres: {server} (set WARDROUND_TEST_POSTGRES_URL): {error}") from error
    try:
        yield Postgres(server, name)
    finally:
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


# --------------------------------------------------------------------------------------------------------- brokers


class FileBroker:
    """The embedded broker: messages are files of one folder."""

    url = ""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def drop(self) -> None:
        for message in self._messages():
            message.unlink(missing_ok=True)

    def restart(self, seconds_away: float) -> None:
        """As much of it as a folder can have: for a while it is not there, and comes back empty."""
        away = self._folder.with_name("broker-away")
        self._folder.rename(away)
        time.sleep(seconds_away)
        with suppress(OSError):
            self._folder.mkdir()  # unless a process has made it anew
        shutil.rmtree(away)

    def _messages(self) -> list[Path]:
        return [path for path in self._folder.glob("*.msg") if not path.name.startswith(".")]


class Redis:
    """A Redis of our own, on a port of its own, that keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        import redis

        command = ["redis-server", "--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen([*command, "--dir", str(self._folder)], stdout=subprocess.DEVNULL)
        for _ in range(200):
            with suppress(redis.RedisError), redis.Redis.from_url(self.url) as client:
                client.ping()
                return
            time.sleep(0.05)
        raise NotHereError(f"redis: the server on port {self._port} does not answer")

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def drop(self) -> None:
        import redis

        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def restart(self, seconds_away: float) -> None:
        self.kill()
        time.sleep(seconds_away)
        self.start()


@contextmanager
def _redis(data_dir: Path) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        raise NotHereError("redis: redis-server is not installed")
    server = Redis(data_dir)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class RabbitMQ:
    """Queues in the machine's server, which others use too: it is never restarted."""

    def __init__(self, url: str) -> None:
        self.url = url

    def drop(self) -> None:
        from kombu import Connection

        with Connection(self.url, connect_timeout=5) as connection:
            for lane in Lane:
                with suppress(*connection.channel_errors), connection.channel() as channel:
                    channel.queue_purge(context.queue_of(lane))  # one that nobody has declared yet is empty too

    def restart(self, seconds_away: float) -> None:
        raise NotHereError("RabbitMQ is the machine's own and is not restarted here")


@contextmanager
def _rabbitmq() -> Iterator[RabbitMQ]:
    """A virtual host of our own where we may make one: foreign workers would take our messages."""
    from kombu import Connection

    url = os.environ.get("WARDROUND_TEST_RABBITMQ_URL", RABBITMQ_URL)
    host = f"wardround-faults-{secrets.token_hex(4)}"
    ours = url == RABBITMQ_URL and _rabbitmqctl("add_vhost", host)
    if ours:
        _rabbitmqctl("set_permissions", "-p", host, "guest", ".*", ".*", ".*")
    server = RabbitMQ(f"{url.rstrip('/')}/{host}" if ours else url)
    try:
        with Connection(server.url, connect_timeout=5) as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
    except Exception as error:
        raise NotHereError(f"rabbitmq: {url} (set WARDROUND_TEST_RABBITMQ_URL): {error}") from error
    server.drop()
    try:
        yield server
    finally:
        server.drop()
        if ours:
            _rabbitmqctl("delete_vhost", host)


def _rabbitmqctl(*arguments: str) -> bool:
    if shutil.which("rabbitmqctl") is None:
        return False
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.run(["rabbitmqctl", "-q", *arguments], check=False, timeout=60, **quiet).returncode == 0


# ------------------------------------------------------------------------------------------------------------ disk


@contextmanager
def small_disk(folder: Path, size: str = "400m") -> Iterator[bool]:
    """A file system of its own for `folder`, which must be empty; False where mounting is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "wardround-faults", str(folder)]
    mounted = bool(shutil.which("mount")) and not subprocess.run(command, check=False, capture_output=True).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
