"""How long publishing a queue takes against the number of tasks, on a real Label Studio, and that no request is long.

    PYTHONPATH=. python benchmarks/publishing.py --tasks 1000 5000 50000 --fast-import on

For each size a fresh Label Studio (SQLite, a copy of one started folder) gets a project of so many tasks, and the
product's own step publishes it twice: queue frozen, predictions sent in batches, checked, switched, read back. The
second time is measured. Then the first publication is deleted, in the product's pieces, for at most `--delete-seconds`,
while somebody submits annotations (deletion: of one row; submission: the slowest one meanwhile). Everything is checked:
one prediction a task, and the served order is the queue. The exit status is 1 when a request took longer than
`--longest-seconds`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson

from backend import rounds
from backend.context import Context
from backend.files import Files
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.masks import encode
from backend.rounds import forget
from backend.serving import Serving
from backend.settings import Settings
from backend.store import Store, predictions, projects
from backend.store import rounds as rows
from backend.tables import Project, RoundStatus, Trigger, Verdict
from benchmarks._state import LABEL_CONFIG
from demo.label_studio import LabelStudioServer

FAST_IMPORT = "fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short"
SIDE_PX = 512
EMBEDDING_SIZE = 512
_CHUNK = 5000


class Server(LabelStudioServer):
    """A Label Studio with or without its faster import."""

    fast_import = False

    def _environment(self) -> dict[str, str]:
        return super()._environment() | ({FAST_IMPORT: "true"} if self.fast_import else {})


@dataclass
class Watch:
    """Seconds spent in each call on Label Studio, and the longest one."""

    total: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    longest: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def over(self, client: LabelStudioClient) -> None:
        for name in (
            "import_encoded", "model_versions", "tasks_with", "update_project", "served_order", "served_page",
            "prediction_ids", "delete_prediction", "delete_model_version",
        ):  # fmt: skip
            setattr(client, name, self._timed(name, getattr(client, name)))

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **fields: Any) -> Any:
            started = time.monotonic()
            try:
                return call(*arguments, **fields)
            finally:
                seconds = time.monotonic() - started
                self.total[name] += seconds
                self.calls[name] += 1
                self.longest[name] = max(self.longest[name], seconds)

        return timed


@dataclass(frozen=True)
class Measured:
    """One size, published once into an empty project and once over an earlier publication."""

    tasks: int
    fast_import: bool
    whole: float
    sending: float
    requests: int
    longest_request: float
    checking: float
    switching: float
    reading_back: float
    looking: float
    deleted: int
    deleting: float
    longest_submit: float


def measure(base: Path, tasks: int, fast_import: bool, delete_seconds: float, regions: str) -> Measured:
    watch = Watch()
    with (
        tempfile.TemporaryDirectory() as folder,
        _server(base, Path(folder), fast_import) as server,
        LabelStudioClient(server.url, server.token) as client,
        server.client() as person,
    ):
        person.timeout = 600.0
        project_id, task_ids = _project(person, client, tasks)
        ctx = _context(Path(folder), client, server)
        _store(ctx, project_id, task_ids, regions)
        _publish(ctx, project_id)
        watch.over(client)
        started = time.monotonic()
        queue = _publish(ctx, project_id)
        whole = time.monotonic() - started
        spent, longest_request = dict(watch.total), watch.longest["import_encoded"]
        _require_published(ctx, client, project_id, queue)
        looking = _seconds(lambda: rounds.watch_served(ctx, project_id))
        assert _problem(ctx, project_id) is None, "what was published is what is served"
        deleted, deleting, longest = _delete(ctx, client, person, project_id, task_ids, delete_seconds)
        ctx.store.close()
    return Measured(
        tasks, fast_import, whole, spent["import_encoded"], watch.calls["import_encoded"], longest_request,
        spent["tasks_with"], spent["update_project"], spent["served_order"], looking, deleted, deleting, longest,
    )  # fmt: skip


def _seconds(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


@contextmanager
def _server(base: Path, folder: Path, fast_import: bool) -> Iterator[Server]:
    shutil.copytree(base, folder / "label-studio")
    server = Server(folder / "label-studio")
    server.fast_import = fast_import
    with server:
        yield server


def _project(person: httpx.Client, client: LabelStudioClient, tasks: int) -> tuple[int, list[int]]:
    answer = person.post("/api/projects/", json={"title": "publishing", "label_config": LABEL_CONFIG})
    project_id = int(answer.raise_for_status().json()["id"])
    for start in range(0, tasks, _CHUNK):
        chunk = [{"data": {"image": f"/{n}.png"}} for n in range(start, min(start + _CHUNK, tasks))]
        person.post(f"/api/projects/{project_id}/import", json=chunk).raise_for_status()
    return project_id, sorted(client.task_ids(project_id))


def _context(folder: Path, client: LabelStudioClient, server: Server) -> Context:
    settings = Settings(data_dir=folder / "wardround", label_studio_url=server.url, device="cpu")
    store = Store(settings.database_url)
    store.migrate()
    files = Files(settings.data_dir / "files", max_image_pixels=settings.max_image_pixels)
    return Context(
        settings=settings, store=store, files=files, label_studio=client,
        serving=Serving(store, files, settings.device), enqueue=lambda *_, **__: None, now=lambda: datetime.now(UTC),
    )  # fmt: skip


def _store(ctx: Context, project_id: int, task_ids: list[int], regions: str) -> None:
    """Tasks and their scored predictions, as a rescoring would have left them."""
    now = ctx.now()
    rng = np.random.default_rng(0)
    scores = rng.permutation(len(task_ids))
    with ctx.store.begin() as s:
        projects.save(
            s,
            Project(
                id=project_id, title="publishing", label_config=LABEL_CONFIG, prompts={"Lesion": "a lesion"},
                group_field="group", prompt_field="prompt", connected_at=now,
            ),
        )  # fmt: skip
        projects.add_tasks(
            s,
            [
                {"id": n, "project_id": project_id, "image_url": f"/{n}.png", "group_key": str(n),
                 "held_out": n % 10 == 0, "created_at": now}
                for n in task_ids
            ],
        )  # fmt: skip
        version = predictions.add_version(s, project_id, parent_id=None, checkpoint_sha256="0" * 64, card={}, now=now)
        predictions.add(
            s,
            (
                {"task_id": n, "model_version_id": version.id, "regions_json": regions, "score": float(score),
                 "embedding": _embedding(rng), "created_at": now}
                for n, score in zip(task_ids, scores, strict=True)
            ),
        )  # fmt: skip


def _embedding(rng: np.random.Generator) -> bytes:
    """Of length 1, as ViT-B/16 has them, for strategies that look at likeness."""
    row = rng.standard_normal(EMBEDDING_SIZE)
    return (row / np.linalg.norm(row)).astype("<f4").tobytes()


def _publish(ctx: Context, project_id: int) -> list[int]:
    """Run the step as a worker would; returns the queue."""
    with ctx.store.begin() as s:
        (version,) = predictions.versions(s, project_id)
        last = rows.latest(s, project_id)
        row = rows.open_round(
            s, project_id, trigger=Trigger.request, strategy=ctx.settings.strategy, seed=last.number + 1 if last else 0,
            now=ctx.now(), status=RoundStatus.rescored, verdict=Verdict.promoted, candidate_id=version.id,
        )  # fmt: skip
    assert rounds.run(ctx, row.id)
    with ctx.store.read() as s:
        return predictions.queued_ids(s, row.id)


def _require_published(ctx: Context, client: LabelStudioClient, project_id: int, queue: list[int]) -> None:
    with ctx.store.read() as s:
        name = str(projects.get(s, project_id).published_version)
    assert client.model_versions(project_id)[name] == len(queue), "one prediction a task"
    assert client.served_order(project_id) == queue, "served as ranked"


def _problem(ctx: Context, project_id: int) -> str | None:
    with ctx.store.read() as s:
        return projects.get(s, project_id).queue_problem


def _delete(
    ctx: Context, client: LabelStudioClient, person: httpx.Client, project_id: int, task_ids: list[int], most: float
) -> tuple[int, float, float]:
    """Rows deleted, the seconds that took, and the longest that a submission took meanwhile."""
    waits: list[float] = []
    over = threading.Event()
    thread = threading.Thread(target=_submit, args=(person, task_ids[::-1], waits, over), daemon=True)
    with ctx.store.begin() as s:  # the first publication counts as one before the last two
        rows.of_project(s, project_id)[0].published_version = None
    before = sum(client.model_versions(project_id).values())
    thread.start()
    started = time.monotonic()
    forget._PIECE_SECONDS = min(forget._PIECE_SECONDS, most)
    while time.monotonic() - started < most and rounds.forget_some(ctx, project_id):
        pass
    seconds = time.monotonic() - started
    over.set()
    thread.join()
    return before - sum(client.model_versions(project_id).values()), seconds, max(waits, default=0.0)


def _submit(person: httpx.Client, task_ids: list[int], waits: list[float], over: threading.Event) -> None:
    for task_id in task_ids:
        body = {"result": [], "lead_time": 1.0}
        waits.append(
            _seconds(lambda: person.post(f"/api/tasks/{task_id}/annotations/", json=body).raise_for_status())  # noqa: B023
        )
        if over.wait(0.5):
            return


def _regions() -> str:
    """One brush of about three kilobytes, as JSON."""
    grid = np.mgrid[:SIDE_PX, :SIDE_PX]
    mask = np.hypot(grid[0] - 256, grid[1] - 200) < 90
    region = {
        "id": "a1", "from_name": "brush", "to_name": "image", "type": "brushlabels", "original_width": SIDE_PX,
        "original_height": SIDE_PX, "image_rotation": 0,
        "value": {"format": "rle", "rle": [int(each) for each in encode(mask)], "brushlabels": ["Lesion"]},
    }  # fmt: skip
    return orjson.dumps([region]).decode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--fast-import", choices=["off", "on", "both"], default="both")
    parser.add_argument("--delete-seconds", type=float, default=30.0)
    parser.add_argument("--longest-seconds", type=float, default=90.0, help="no request may take longer")
    parser.add_argument("--label-studio", type=Path, help="a folder in which one was started; default: a new one")
    asked = parser.parse_args()
    regions = _regions()
    print(f"regions of {len(regions)} bytes a task, {os.cpu_count()} cores, Label Studio on SQLite")
    print("  tasks fast  publish     send  requests  longest    check  switch  read back   look  deletion  submission")
    longest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        base = asked.label_studio or _started(Path(folder) / "base")
        for tasks in asked.tasks:
            for fast_import in {"off": [False], "on": [True], "both": [False, True]}[asked.fast_import]:
                one = measure(base, tasks, fast_import, asked.delete_seconds, regions)
                longest = max(longest, one.longest_request)
                print(_line(one), flush=True)
    return 0 if longest < asked.longest_seconds else 1


def _started(folder: Path) -> Path:
    with Server(folder):
        return folder


def _line(one: Measured) -> str:
    per_row = one.deleting / one.deleted * 1000 if one.deleted else float("nan")
    return (
        f"{one.tasks:7d}  {'on ' if one.fast_import else 'off'} {one.whole:6.1f} s {one.sending:6.1f} s "
        f"{one.requests:9d} {one.longest_request:6.1f} s {one.checking:6.1f} s {one.switching:5.2f} s "
        f"{one.reading_back:8.1f} s {one.looking:4.1f} s {per_row:6.0f} ms {one.longest_submit:9.2f} s"
    )


if __name__ == "__main__":
    raise SystemExit(main())
