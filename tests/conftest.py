"""Real services for the tests, and a loud list of what could not be tested here.

A service that is missing skips its tests, unless WARDROUND_REQUIRE_SERVICES names it (`1` for all, or a list such as
`label-studio,postgres`): then they fail, so that a broken service cannot pass for an absent one.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

# Before torch is imported: the tests' networks are tiny, and threads that wait for each other on busy cores cost more
# than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from demo.label_studio import LabelStudioServer, default_executable
from tools import ensure_browser

POSTGRES_URL = "postgresql://postgres@127.0.0.1:5432"
REDIS_URL = "redis://127.0.0.1:6379/15"
RABBITMQ_URL = "amqp://guest:guest@127.0.0.1:5672//"


class _WithLocalFiles(LabelStudioServer):
    """It also serves what lies in a folder of its own disk."""

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {
            "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(self.state_dir / "local-files"),
        }


@pytest.fixture(scope="session")
def label_studio(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[LabelStudioServer]:
    """A real Label Studio with an empty database: its first start takes about a minute."""
    if not default_executable().exists():
        _missing("label-studio", "not installed; run `make setup`")
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.write_line("starting a real Label Studio: about a minute", yellow=True)
    with _WithLocalFiles(tmp_path_factory.mktemp("label-studio")) as server:
        yield server


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with the schema and no rows. A copy takes milliseconds, migrating anew a third of a second."""
    from backend.store import Store

    path = tmp_path_factory.mktemp("schema") / "empty.db"
    store = Store(f"sqlite:///{path}")
    store.migrate()
    store.close()
    return path


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A SQLAlchemy URL of a PostgreSQL database made for this test session and dropped after it."""
    import psycopg

    server = os.environ.get("WARDROUND_TEST_POSTGRES_URL", POSTGRES_URL).rstrip("/")
    name = f"wardround_test_{secrets.token_hex(6)}"
    try:
        with psycopg.connect(f"{server}/postgres", autocommit=True, connect_timeout=5) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
    except psycopg.OperationalError as error:
        _missing("postgres", f"{server} (set WARDROUND_TEST_POSTGRES_URL): {error}")
    yield f"{server.replace('postgresql://', 'postgresql+psycopg://', 1)}/{name}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def redis_url() -> str:
    """A Redis database; tests name their own queues in it."""
    import redis

    url = os.environ.get("WARDROUND_TEST_REDIS_URL", REDIS_URL)
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=5) as client:
            client.ping()
    except redis.RedisError as error:
        _missing("redis", f"{url} (set WARDROUND_TEST_REDIS_URL): {error}")
    return url


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    """A RabbitMQ virtual host; tests name their own queues in it."""
    from kombu import Connection

    url = os.environ.get("WARDROUND_TEST_RABBITMQ_URL", RABBITMQ_URL)
    try:
        with Connection(url, connect_timeout=5) as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
    except Exception as error:  # noqa: BLE001  # each transport has errors of its own; all mean "not there"
        _missing("rabbitmq", f"{url} (set WARDROUND_TEST_RABBITMQ_URL): {error}")
    return url


@pytest.fixture(scope="session")
def label_studio_ml() -> Path:
    """The Python of an environment with label-studio-ml 1.0.9, which clashes with everything else."""
    path = Path(__file__).resolve().parents[1] / ".venv-adapter" / "bin" / "python"
    if not path.exists():
        _missing("label-studio-ml", "not installed; run `make test`")
    done = subprocess.run([path, "-c", "import label_studio_ml.api"], capture_output=True, text=True, check=False)
    if done.returncode:
        _missing("label-studio-ml", f"it does not run under this Python: {done.stderr.strip().splitlines()[-1]}")
    return path


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """A Chromium for Playwright: `launch(executable_path=chromium_path, args=["--no-sandbox"])`."""
    path = ensure_browser.find()
    if path is None:
        _missing("browser", "no Chromium found; run `python tools/ensure_browser.py`")
    return path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name everything that was skipped, however quiet the run: a skip must not look like a pass."""
    skipped = Counter(_reason(report) for report in terminalreporter.getreports("skipped"))
    if not skipped:
        return
    terminalreporter.write_sep("!", "NOT TESTED HERE", yellow=True, bold=True)
    for reason, count in sorted(skipped.items()):
        terminalreporter.write_line(f"  {count} skipped: {reason}", yellow=True)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    place = report.longrepr
    text = place[2] if isinstance(place, tuple) else str(place)
    return text.removeprefix("Skipped: ").strip()


def _missing(service: str, why: str) -> NoReturn:
    required = os.environ.get("WARDROUND_REQUIRE_SERVICES", "")
    if required == "1" or service in required.split(","):
        pytest.fail(f"{service} is required by WARDROUND_REQUIRE_SERVICES={required}: {why}", pytrace=False)
    pytest.skip(f"{service}: {why.splitlines()[0]}")
