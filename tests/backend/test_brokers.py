"""From a nudge to a round's own process, over every broker and on both databases: real workers, real messages."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from pydantic import SecretStr

from backend import context
from backend.settings import Settings
from backend.store import Store, rounds
from tests.backend import rows
from tests.backend.fakes import LABEL_CONFIG

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 180
NOBODY = "http://127.0.0.1:9"  # the discard port: a Label Studio that is down


@pytest.fixture
def settings(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a product on the broker that the test names, without old messages of anybody's."""
    broker = request.param and request.getfixturevalue(request.param)
    made = Settings(
        data_dir=tmp_path,
        database_url=store.url.render_as_string(hide_password=False),
        broker_url=broker,
        label_studio_url=NOBODY,
        label_studio_token=SecretStr("a-token"),
    )
    purge(made)
    yield made
    purge(made)


def purge(settings: Settings) -> None:
    app = Celery("purge", set_as_current=False)
    app.conf.update(context.celery_config(settings))
    app.control.purge()


@pytest.mark.parametrize(
    ("settings", "store"),
    [("", "sqlite"), ("redis_url", "postgres"), ("rabbitmq_url", "postgres")],
    indirect=True,
    ids=["files and SQLite", "Redis and PostgreSQL", "RabbitMQ and PostgreSQL"],
)
def test_a_nudge_opens_a_round_which_runs_in_a_process_of_its_own(settings: Settings, store: Store) -> None:
    """Label Studio is down, so the process hands the round back: its words in the row show that it came that far."""
    with store.begin() as s:
        s.add(rows.project(label_config=LABEL_CONFIG))
        s.flush()
        s.add(rows.task())
    ctx = context.build(settings)
    ctx.enqueue("open_if_due", 1)
    with Worker(settings) as running:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (error := last_words(store)) is None:
            assert running.poll() is None, log_of(settings)
            assert time.monotonic() < deadline, log_of(settings)
            time.sleep(0.2)
    ctx.close()
    assert "LabelStudioUnreachable" in error
    assert running.returncode == 0, log_of(settings)
    with store.read() as s:
        assert [row.number for row in rounds.of_project(s, 1)] == [0]


def last_words(store: Store) -> str | None:
    with store.read() as s:
        row = rounds.latest(s, 1)
        return None if row is None else row.error


class Worker:
    """`wardround worker` as a user starts it; stopped with SIGTERM as a service manager does."""

    def __init__(self, settings: Settings) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WARDROUND_")}
        environment |= {
            "WARDROUND_DATA_DIR": str(settings.data_dir),
            "WARDROUND_DATABASE_URL": settings.database_url,
            "WARDROUND_BROKER_URL": settings.broker_url,
            "WARDROUND_LABEL_STUDIO_URL": settings.label_studio_url,
            "WARDROUND_LABEL_STUDIO_TOKEN": settings.label_studio_token.get_secret_value(),
        }
        with (settings.data_dir / "worker.log").open("wb") as log:
            command = [sys.executable, "-m", "backend.cli", "worker"]
            self._process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def log_of(settings: Settings) -> str:
    return (settings.data_dir / "worker.log").read_text(errors="replace")[-4000:]
