"""Wardround's own rows beside a real Label Studio: a connected project, and what a round leaves behind."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import orjson
import uvicorn
from pydantic import SecretStr

from backend import annotations
from backend.app import create_app
from backend.context import Context
from backend.files import Files
from backend.label_studio import payloads
from backend.label_studio.client import LabelStudioClient
from backend.serving import Serving
from backend.settings import Settings
from backend.store import Store, projects
from backend.tables import Arm, Query
from demo.processes import LOOPBACK, free_port
from tests.backend import rows
from tests.backend.label_studio.live import CONFIG, CONFIG_XML, blob

API_TOKEN = "the-api-token"
WEBHOOK_SECRET = "the-webhook-secret"


def context_of(client: LabelStudioClient, folder: Path, project_id: int) -> Context:
    """A context whose database knows the project and its tasks. Close it."""
    settings = Settings(
        data_dir=folder,
        label_studio_url="http://label-studio.test",
        label_studio_token=SecretStr("unused"),
        api_token=SecretStr(API_TOKEN),
        webhook_secret=SecretStr(WEBHOOK_SECRET),
        device="cpu",
    )
    store = Store(f"sqlite:///{folder / 'product.db'}")
    store.migrate()
    files = Files(folder / "files", max_image_pixels=settings.max_image_pixels)
    ctx = Context(
        settings=settings,
        store=store,
        files=files,
        label_studio=client,
        serving=Serving(store, files, settings.device),
        enqueue=lambda *_message, **_how: None,
        now=lambda: datetime.now(UTC),
    )
    know_project(ctx, project_id)
    return ctx


def know_project(ctx: Context, project_id: int) -> None:
    """The rows of a connected project and of its tasks."""
    with ctx.store.begin() as s:
        projects.save(s, rows.project(id=project_id, label_config=CONFIG_XML))
    pull(ctx, project_id)


@contextmanager
def running(client: LabelStudioClient, url: str, token: str, folder: Path) -> Iterator[Context]:
    """Wardround on a real Label Studio with a database that knows no project, its API running at its public address."""
    port = free_port()
    settings = Settings(
        data_dir=folder,
        label_studio_url=url,
        label_studio_token=SecretStr(token),
        public_url=f"http://{LOOPBACK}:{port}",
        api_token=SecretStr(API_TOKEN),
        webhook_secret=SecretStr(WEBHOOK_SECRET),
        device="cpu",
    )
    store = Store(settings.database_url)
    store.migrate()
    files = Files(folder / "files", max_image_pixels=settings.max_image_pixels)
    serving = Serving(store, files, "cpu")
    ctx = Context(settings, store, files, client, serving, lambda *_, **__: None, lambda: datetime.now(UTC))
    with served(ctx, port):
        yield ctx
    store.close()


@contextmanager
def served(ctx: Context, port: int) -> Iterator[None]:
    """The real API, in a thread."""
    server = uvicorn.Server(uvicorn.Config(create_app(ctx), host=LOOPBACK, port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        yield
    finally:
        server.should_exit = True
        thread.join()


def pull(ctx: Context, project_id: int) -> None:
    with ctx.store.read() as s:
        project = projects.get(s, project_id)
    annotations.reconcile(ctx, project)


def remember_round(
    ctx: Context, project_id: int, ranking: Sequence[int], version: str = "wardround-r1-v1", row_id: int = 1
) -> None:
    """The rows of a round that did what `live.publish` does: model version 1 and its predictions of each task."""
    now = ctx.now()
    with ctx.store.begin() as s:
        s.add(rows.version(id=row_id, project_id=project_id, serving=True))
        s.flush()
        s.add(rows.a_round(id=row_id, project_id=project_id, number=1, published_version=version, finished_at=now))
        projects.change(s, project_id, published_version=version)
        s.flush()
        for rank, task_id in enumerate(ranking):
            regions = payloads.regions(CONFIG, {"Lesion": blob(rank)}, {"Lesion": 0.8})
            text = orjson.dumps(regions).decode()
            s.add(Query(round_id=row_id, rank=rank, task_id=task_id, arm=Arm.strategy))
            s.add(rows.prediction(task_id=task_id, model_version_id=row_id, regions_json=text, score=0.5))
