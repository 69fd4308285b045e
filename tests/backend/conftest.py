"""A context over a real database and files, with a Label Studio in memory."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from backend import annotations
from backend.context import Context
from backend.files import Files
from backend.serving import Serving
from backend.settings import Settings
from backend.store import Store, projects
from backend.tables import Base, Project
from tests.backend.fakes import START, FakeLabelStudio


@dataclass
class World:
    """Everything a journey touches, and handles to disturb it."""

    ctx: Context
    label_studio: FakeLabelStudio
    sent: list[tuple[Any, ...]] = field(default_factory=list)
    clock: list[timedelta] = field(default_factory=lambda: [timedelta()])

    def pass_time(self, minutes: float) -> None:
        """Move our clock, and Label Studio's, forward."""
        self.clock[0] += timedelta(minutes=minutes)
        self.label_studio.clock += timedelta(minutes=minutes)

    @property
    def project(self) -> Project:
        with self.ctx.store.read() as s:
            return projects.get(s, self.label_studio.project_id)

    def pull(self) -> None:
        annotations.reconcile(self.ctx, self.project)


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A migrated, empty database: each test runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("migrated_file"), tmp_path / "test.db")
        store = Store(f"sqlite:///{tmp_path / 'test.db'}")
    else:
        store = Store(request.getfixturevalue("postgres_url"))
        store.migrate()
        _empty(store)
    yield store
    store.close()


def _empty(store: Store) -> None:
    """Take all rows away, and count from 1 again; what another test did to the schema, migrating has undone."""
    tables = ", ".join(f'"{table.name}"' for table in Base.metadata.sorted_tables)
    with store.begin() as s:
        s.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))


@pytest.fixture
def world(store: Store, tmp_path: Path) -> World:
    """A connected project without tasks. Training is one step: these tests are about rounds, not about Dice."""
    settings = Settings(
        data_dir=tmp_path,
        label_studio_url="http://label-studio.test",
        label_studio_token=SecretStr("a-token"),
        api_token=SecretStr("the-api-token"),
        webhook_secret=SecretStr("the-webhook-secret"),
        annotations_per_round=4,
        debounce_seconds=0,
        min_held_out=1,
        held_out_share=0.3,
        n_draws=2,
        max_draws=2,
        train_max_steps=1,
        lease_seconds=60,
        device="cpu",
    )
    files = Files(tmp_path / "files", max_image_pixels=settings.max_image_pixels)
    label_studio = FakeLabelStudio()
    sent: list[tuple[Any, ...]] = []
    clock = [timedelta()]
    ctx = Context(
        settings=settings,
        store=store,
        files=files,
        label_studio=label_studio,  # type: ignore[arg-type]
        serving=Serving(store, files, settings.device),
        enqueue=lambda *message, **_: sent.append(message),
        now=lambda: datetime.now(UTC) + clock[0],
    )
    with store.begin() as s:
        projects.save(
            s,
            Project(
                id=label_studio.project_id,
                title="fake",
                label_config=label_studio.label_config,
                prompts={"Lesion": "a bright disc"},
                group_field="group",
                prompt_field="prompt",
                connected_at=START,
            ),
        )
    return World(ctx, label_studio, sent, clock)
