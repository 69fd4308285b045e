"""What grows with a project: a pull, watching the order, a webhook, counting news, opening a round.

    PYTHONPATH=. python benchmarks/growth.py             (or `make bench`; --help lists the options)

Projects of 1 000 to 100 000 tasks, a tenth of them annotated, on SQLite and on PostgreSQL (the server of the tests,
WARDROUND_TEST_POSTGRES_URL; without it its half is skipped, loudly). Label Studio is one in memory that answers only
what changed, so that the figures are our own time and the database's. Each figure is the median of several runs. The
exit status is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np

from backend import annotations, rounds
from backend.context import Context
from backend.files import Files
from backend.label_studio.client import LabelStudioClient, TaskWithAnnotations
from backend.label_studio.label_config import parse_label_config
from backend.label_studio.payloads import Annotation, Event, Task, regions
from backend.serving import Serving
from backend.settings import Settings
from backend.store import Session, Store, predictions, projects
from backend.store import annotations as rows
from backend.store import rounds as round_rows
from backend.tables import Arm, Project, Round, RoundStatus, Trigger

PROJECT = 1
PUBLISHED = "wardround-r1-v0"
CHANGES = 30
ANNOTATED_EVERY = 10
SIDE_PX = 64
START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
LABEL_CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<BrushLabels name="brush" toName="image"><Label value="Lesion"/></BrushLabels></View>'
)
TARGET_SECONDS = {  # at TARGET_TASKS
    "pull, 30 changes": 1.0,
    "watch the order": 1.0,
    "open_if_due": 2.0,
    "open_now": 2.0,
}
TARGET_TASKS = 10_000


@dataclass
class OnlyChanges:
    """A Label Studio that has the changes at hand: what it costs to find them is not ours."""

    task_number: int
    answered: set[int] = field(default_factory=set)
    changed: list[TaskWithAnnotations] = field(default_factory=list)

    def project(self, _project_id: int) -> dict[str, Any]:
        served = {"model_version": PUBLISHED, "sampling": "Uncertainty sampling", "show_collab_predictions": True}
        return {"label_config": LABEL_CONFIG, "task_number": self.task_number} | served

    def served_page(self, _project_id: int, page: int, size: int) -> tuple[list[int], int]:
        """The queue is the order of the ids, of those that nobody has answered."""
        waiting = [number for number in range(1, self.task_number + 1) if number not in self.answered]
        return waiting[(page - 1) * size : page * size], len(waiting)

    def served_order(self, _project_id: int) -> list[int]:
        raise SystemExit("the whole order was read although what is looked at is right")

    def tasks(self, _project_id: int, updated_after: datetime | None = None) -> Iterator[TaskWithAnnotations]:
        return (found for found in self.changed if updated_after is None or found.updated_at > updated_after)

    def task_ids(self, _project_id: int) -> set[int]:
        raise SystemExit("a pull asked for the ids of all tasks although the counts agree")


@dataclass
class Bench:
    """A filled project, and what was measured on it."""

    ctx: Context
    label_studio: OnlyChanges
    rng: np.random.Generator
    clock: datetime
    next_id: int

    @property
    def project(self) -> Project:
        with self.ctx.store.read() as s:
            return projects.get(s, PROJECT)

    def answer(self) -> TaskWithAnnotations:
        """Somebody answers a task with a mask of their own."""
        self.next_id += 1
        self.clock += timedelta(milliseconds=10)
        task = _task(int(self.rng.integers(1, self.label_studio.task_number + 1)))
        mask = np.zeros((SIDE_PX, SIDE_PX), dtype=bool)
        top, left = self.rng.integers(0, SIDE_PX // 2, 2)
        mask[top : top + 20, left : left + 20] = self.rng.random((20, 20)) < 0.9
        found = Annotation(
            id=self.next_id, task_id=task.id, project_id=PROJECT, completed_by=1, lead_time_seconds=9.0,
            created_at=self.clock, updated_at=self.clock, skipped=False, parent_prediction=None,
            regions=regions(parse_label_config(LABEL_CONFIG), {"Lesion": mask}, {}),
        )  # fmt: skip
        return TaskWithAnnotations(task, [found], self.clock, True)


def _task(task_id: int) -> Task:
    url = f"/data/upload/{task_id}.png"
    return Task(task_id, PROJECT, {"image": url, "group": f"patient {task_id // 3}"}, url)


def filled(store: Store, folder: Path, n_tasks: int) -> Bench:
    """A project of which every tenth task is annotated, and one round that has seen all that."""
    label_studio = OnlyChanges(n_tasks)
    files = Files(folder / "files", max_image_pixels=64_000_000)
    settings = Settings(data_dir=folder, annotations_per_round=20, debounce_seconds=0.0)
    ctx = Context(
        settings=settings, store=store, files=files, label_studio=cast(LabelStudioClient, label_studio),
        serving=Serving(store, files, "cpu"), enqueue=lambda *_, **__: None, now=lambda: datetime.now(UTC),
    )  # fmt: skip
    store.migrate()
    project = Project(
        id=PROJECT, title="benchmark", label_config=LABEL_CONFIG, prompts={}, group_field="group",
        prompt_field="prompt", connected_at=START, reconciled_until=START, published_version=PUBLISHED,
    )  # fmt: skip
    empty = files.put_mask(np.zeros((SIDE_PX, SIDE_PX), dtype=bool))
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    with store.begin() as s:
        projects.save(s, project)
        s.flush()
        tasks = [annotations.task_row(project, _task(number), 0.2, START) for number in range(1, n_tasks + 1)]
        projects.add_tasks(s, tasks)
        rows.upsert_all(s, [_old(number, empty, long_ago) for number in range(1, n_tasks, ANNOTATED_EVERY)])
        _publish(s, n_tasks, long_ago)
        opened = round_rows.open_round(s, PROJECT, trigger=Trigger.first, strategy="random", seed=0, now=long_ago)
        opened.status, opened.finished_at = RoundStatus.cancelled, long_ago + timedelta(minutes=1)
        opened.selected_at = opened.finished_at
    label_studio.answered.update(range(1, n_tasks, ANNOTATED_EVERY))
    return Bench(ctx, label_studio, np.random.default_rng(0), START, 10_000_000)


def _publish(s: Session, n_tasks: int, moment: datetime) -> None:
    """A round that is done and published every task."""
    done = Round(
        project_id=PROJECT, number=1, status=RoundStatus.done, trigger=Trigger.first, strategy="random", seed=0,
        attempts=0, opened_at=moment, finished_at=moment, published_version=PUBLISHED,
    )  # fmt: skip
    s.add(done)
    s.flush()
    queue = [{"task_id": number, "score": None, "arm": Arm.random} for number in range(1, n_tasks + 1)]
    predictions.write_queue(s, done.id, queue)


def _old(number: int, mask_sha256: str, received_at: datetime) -> rows.Received:
    values = {
        "id": number, "project_id": PROJECT, "task_id": number, "completed_by": 1, "skipped": False,
        "created_at": START, "updated_at": START, "received_at": received_at,
    }  # fmt: skip
    return rows.Received(values, {"Lesion": mask_sha256})


# --------------------------------------------------------------------------------------------------- what is measured


def pull(bench: Bench) -> None:
    annotations.reconcile(bench.ctx, bench.project)


def watch(bench: Bench) -> None:
    if problem := rounds.watch_served(bench.ctx, PROJECT):
        raise SystemExit(problem)


def webhook(bench: Bench) -> None:
    del bench.label_studio.changed[1:]
    [found] = bench.label_studio.changed
    annotations.receive(bench.ctx, Event("ANNOTATION_CREATED", PROJECT, found.annotations, [found.task]))


def count_news(bench: Bench) -> None:
    with bench.ctx.store.read() as s:
        rows.news(s, PROJECT, round_rows.latest(s, PROJECT), 20, None)


def open_if_due(bench: Bench) -> None:
    if rounds.open_if_due(bench.ctx, PROJECT) is None:
        raise SystemExit("no round was opened although there was news")


def open_now(bench: Bench) -> None:
    rounds.open_now(bench.ctx, PROJECT)


MEASURED: dict[str, Callable[[Bench], None]] = {
    "pull, 30 changes": pull,
    "watch the order": watch,
    "webhook": webhook,
    "news": count_news,
    "open_if_due": open_if_due,
    "open_now": open_now,
}


BRINGS_ANSWERS = ("pull, 30 changes", "webhook")


def measure(bench: Bench, repeats: int) -> dict[str, float]:
    """Seconds of each, the median of some runs. Whatever a round was opened for is there to be counted."""
    times: dict[str, list[float]] = {name: [] for name in MEASURED}
    for _ in range(repeats):
        for name, act in MEASURED.items():
            # Each pull finds what none has found; the changes before it lie behind its overlap.
            bench.clock += timedelta(hours=1)
            bench.label_studio.changed = [bench.answer() for _ in range(CHANGES)]
            start = time.perf_counter()
            act(bench)
            times[name].append(time.perf_counter() - start)
            _end_rounds(bench)
            if name in BRINGS_ANSWERS:
                bench.label_studio.answered.update(found.task.id for found in bench.label_studio.changed)
    return {name: statistics.median(found) for name, found in times.items()}


def _end_rounds(bench: Bench) -> None:
    """Take a round that was opened out of the way, as one that dealt with nothing."""
    with bench.ctx.store.begin() as s:
        last = round_rows.latest(s, PROJECT)
        if last is not None and last.finished_at is None:
            s.delete(last)


# ---------------------------------------------------------------------------------------------------------- databases


@contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder / 'wardround.db'}"


@contextmanager
def postgresql(_folder: Path) -> Iterator[str]:
    """A database made for the measurement and dropped after it; psycopg.OperationalError where no server answers."""
    import psycopg

    server = os.environ.get("WARDROUND_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432").rstrip("/")
    name = f"wardround_bench_{secrets.token_hex(6)}"
    with psycopg.connect(f"{server}/postgres", autocommit=True, connect_timeout=5) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    try:
        yield f"{server.replace('postgresql://', 'postgresql+psycopg://', 1)}/{name}"
    finally:
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def run(database: Callable[[Path], Any], n_tasks: int, repeats: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="wardround-bench-") as folder, database(Path(folder)) as url:
        store = Store(url)
        try:
            return measure(filled(store, Path(folder), n_tasks), repeats)
        finally:
            store.close()


def report(name: str, found: dict[int, dict[str, float]]) -> bool:
    """Print one table; returns whether every target is met."""
    sizes = sorted(found)
    print(f"\n{name + ', ms':<20}" + "".join(f"{size:>10}" for size in sizes) + f"{'growth':>9}")
    met = True
    for act in MEASURED:
        seconds = [found[size][act] for size in sizes]
        figures = "".join(f"{1000 * each:>10.1f}" for each in seconds)
        promise = ""
        if act in TARGET_SECONDS and TARGET_TASKS in found:
            kept = found[TARGET_TASKS][act] <= TARGET_SECONDS[act]
            met &= kept
            promise = f"   <= {TARGET_SECONDS[act]:.0f} s at {TARGET_TASKS}: {'met' if kept else 'MISSED'}"
        print(f"{act:<20}{figures}{seconds[-1] / seconds[0]:>8.1f}x{promise}")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=7, help="runs of each (default: %(default)s)")
    options = parser.parse_args()
    import psycopg

    met = True
    for name, database in (("SQLite", sqlite), ("PostgreSQL", postgresql)):
        try:
            met &= report(name, {size: run(database, size, options.repeats) for size in options.tasks})
        except psycopg.OperationalError as error:
            print(f"\n!!! NOT MEASURED: {name} does not answer: {error}", file=sys.stderr)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
