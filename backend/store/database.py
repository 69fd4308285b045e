"""Opening, migrating and transacting with the database, SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from filelock import FileLock
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session

from backend.errors import BadSettings, DatabaseUnreachable, SchemaTooNew

_MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
_MIGRATION_LOCK = 0x57415244  # any number that all Wardrounds on one PostgreSQL share


class Store:
    """A database. `begin()` is one short transaction; nothing slow belongs inside it."""

    def __init__(self, url: str) -> None:
        self.url = _usable(url)
        self.engine = _engine(self.url)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A transaction: committed on leaving, rolled back on an error. Rows stay readable afterwards."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Like `begin()` for reading alone: on SQLite it does not wait for a writer, nor make one wait."""
        with Session(self.engine.execution_options(readonly=True), expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self, revision: str = "head") -> None:
        """Bring the schema to `revision` (a name, `head` or `base`); one process at a time, the others wait."""
        with self._migration_lock(), _without_foreign_keys(self.engine) as connection:
            config = _alembic_config(connection)
            current = MigrationContext.configure(connection).get_current_revision()
            connection.rollback()
            _refuse_unknown(config, current)
            going_down = revision == "base" or (current and _is_behind(config, revision, current))
            (command.downgrade if going_down else command.upgrade)(config, revision)

    def check(self) -> None:
        """Raise alembic's CommandError when the tables and the migrated schema differ."""
        with self.engine.connect() as connection:
            command.check(_alembic_config(connection))

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _migration_lock(self) -> Iterator[None]:
        if self.url.get_backend_name() == "sqlite":
            with FileLock(f"{self.url.database}.migrate-lock"):
                yield
            return
        with self._reached() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATION_LOCK})
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATION_LOCK})

    def _reached(self) -> Connection:
        try:
            return self.engine.connect()
        except OperationalError as error:
            where = self.url.render_as_string(hide_password=True)
            reason = " ".join(str(error.orig).split())
            raise DatabaseUnreachable(f"WARDROUND_DATABASE_URL: no database at {where} ({reason})") from error


def _usable(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = URL.create("nothing")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise BadSettings(
            "WARDROUND_DATABASE_URL must be sqlite:///file or postgresql+psycopg://user:password@host/database"
        )
    # The bare name means a driver that is not installed here.
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    folder = Path(url.database or ".").parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadSettings(f"WARDROUND_DATABASE_URL: the folder {folder} cannot be made: {error.strerror}") from error
    engine = create_engine(url)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Python's own BEGIN comes too late: read-then-write transactions lose updates without an error.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    readonly = connection.get_execution_options().get("readonly")
    connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")


@contextmanager
def _without_foreign_keys(engine: Engine) -> Iterator[Connection]:
    """A connection for migrations: SQLite rebuilds tables, and with foreign keys on that deletes their children."""
    with engine.connect() as connection:
        if engine.dialect.name != "sqlite":
            yield connection
            return
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA foreign_keys=OFF")
        try:
            yield connection
            broken = driver.execute("PRAGMA foreign_key_check").fetchall()
        finally:
            connection.rollback()  # inside a transaction that a failure left open, SQLite ignores the next line
            driver.execute("PRAGMA foreign_keys=ON")
        if broken:
            raise SchemaTooNew(f"the migration left dangling references: {broken[:5]}; restore the backup")


def _alembic_config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _refuse_unknown(config: Config, current: str | None) -> None:
    try:
        ScriptDirectory.from_config(config).get_revision(current or "base")
    except CommandError:
        raise SchemaTooNew(f"the database is at revision {current}, unknown here; start the newer Wardround") from None


def _is_behind(config: Config, revision: str, current: str) -> bool:
    script = ScriptDirectory.from_config(config)
    return any(step.revision == current for step in script.iterate_revisions("head", revision)) and (
        script.get_revision(revision).revision != current
    )
