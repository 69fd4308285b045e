"""What Prometheus reads: what this program counted since it began, and gauges that others hand in when asked.

Counters and histograms live in processes. Where several of them work for one program, each counts in a file of its
own and whoever is asked adds them up. What the database knows is no counter: it is read when somebody asks.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STEP_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 180, 600, 1800, 3600, 10800)
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
# Anybody may send a webhook with the secret, and an action of any name.
_ACTIONS = {
    "ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "PROJECT_CREATED",
    "PROJECT_DELETED", "PROJECT_UPDATED", "START_TRAINING", "TASKS_CREATED", "TASKS_DELETED",
}  # fmt: skip


@dataclass(frozen=True)
class Gauge:
    """A number that is so now, by labels: each sample names the same ones."""

    name: str
    help: str
    samples: list[tuple[Mapping[str, str], float]] = field(default_factory=list)


@dataclass(frozen=True)
class _Instruments:
    registry: CollectorRegistry
    requests: Any
    request_seconds: Any
    webhook_events: Any
    predictions: Any
    celery_tasks: Any
    celery_task_seconds: Any
    steps: Any
    step_seconds: Any
    hand_backs: Any


def set_up_multiprocess(folder: Path) -> None:
    """Count in files of an empty `folder`, in this process and those it starts. Once, before anything is counted.

    The folder belongs to one running program: what an earlier run left there is removed.
    """
    if "prometheus_client" in sys.modules:
        raise RuntimeError("prometheus_client has been imported already and would count in this process alone")
    folder.mkdir(parents=True, exist_ok=True)
    for left in [*folder.glob("*.db"), *folder.glob("*.lock")]:
        left.unlink(missing_ok=True)
    os.environ[_FOLDER] = str(folder)


def serve(port: int, host: str = "127.0.0.1") -> None:
    """Answer Prometheus from a thread: counters and histograms, which name no project. Nobody is asked for a secret."""
    from prometheus_client import start_http_server

    start_http_server(port, host, _counted())


def exposition(gauges: Iterable[Gauge] = ()) -> bytes:
    """Everything counted by the processes of this program, and the gauges, in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    handed_in = CollectorRegistry()
    handed_in.register(_HandedIn(list(gauges)))
    return generate_latest(_counted()) + generate_latest(handed_in)


def observed_request(route: str, method: str, status: int, seconds: float) -> None:
    """An answered HTTP request. `route` is the template, such as /api/rounds/{round_id}, never the path."""
    known = method if method in _METHODS else "other"
    _instruments().requests.labels(route, known, str(status)).inc()
    _instruments().request_seconds.labels(route, known).observe(seconds)


def observed_webhook(action: str, outcome: str) -> None:
    """A webhook's event; outcome: stored, ignored, opened, running or refused."""
    _instruments().webhook_events.labels(action if action in _ACTIONS else "other", outcome).inc()


def observed_predictions(*, stored: int = 0, computed: int = 0) -> None:
    """Predictions given to Label Studio, from the database and made while it waited."""
    _instruments().predictions.labels("stored").inc(stored)
    _instruments().predictions.labels("computed").inc(computed)


def observed_celery_task(name: str, outcome: str, seconds: float) -> None:
    """A finished Celery task; outcome: done or failed."""
    _instruments().celery_tasks.labels(name, outcome).inc()
    _instruments().celery_task_seconds.labels(name).observe(seconds)


def observed_step(step: str, outcome: str, seconds: float) -> None:
    """A step of a round; outcome: done, handed_back, lost, interrupted or failed."""
    _instruments().steps.labels(step, outcome).inc()
    _instruments().step_seconds.labels(step).observe(seconds)


def observed_hand_back(reason: str) -> None:
    """A round given up for now; reason: the class of the error, such as LabelStudioUnreachable."""
    _instruments().hand_backs.labels(reason).inc()


@contextmanager
def timed_celery_task(name: str) -> Iterator[None]:
    """Observe the Celery task that runs inside."""
    started = time.monotonic()
    outcome = "failed"
    try:
        yield
        outcome = "done"
    finally:
        observed_celery_task(name, outcome, time.monotonic() - started)


@functools.cache
def _instruments() -> _Instruments:
    from prometheus_client import CollectorRegistry, Counter, Histogram, values

    if _FOLDER in os.environ:
        values.ValueClass = values.MultiProcessValue(_slot)  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()

    def counter(name: str, told: str, *labels: str) -> Counter:
        return Counter(f"wardround_{name}", told, labels, registry=registry)

    def histogram(name: str, told: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"wardround_{name}", told, labels, buckets=buckets, registry=registry)

    return _Instruments(
        registry=registry,
        requests=counter("http_requests", "HTTP requests answered.", "route", "method", "status"),
        request_seconds=histogram("http_request_seconds", "Time to answer.", _REQUEST_SECONDS, "route", "method"),
        webhook_events=counter("webhook_events", "Events that Label Studio sent.", "action", "outcome"),
        predictions=counter("predictions_served", "Predictions given to Label Studio.", "source"),
        celery_tasks=counter("celery_tasks", "Celery tasks finished.", "task", "outcome"),
        celery_task_seconds=histogram("celery_task_seconds", "Time of a Celery task.", _STEP_SECONDS, "task"),
        steps=counter("round_steps", "Steps of rounds, by how they ended.", "step", "outcome"),
        step_seconds=histogram("round_step_seconds", "Time of a round's step.", _STEP_SECONDS, "step"),
        hand_backs=counter("round_hand_backs", "Rounds given up for now.", "reason"),
    )


def _counted() -> CollectorRegistry:
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    if _FOLDER not in os.environ:
        return _instruments().registry
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


@functools.cache
def _held_slot(_pid: int) -> tuple[int, FileLock]:
    """The lowest number that no living process of the program holds, and the lock that holds it until this one ends.

    Every round runs in a process of its own. With files named by process id there would be more of them with each
    round; so the next process goes on counting where one that has ended left off.
    """
    number = 0
    while True:
        lock = FileLock(Path(os.environ[_FOLDER]) / f"{number}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            number += 1
        else:
            return number, lock


def _slot() -> int:
    return _held_slot(os.getpid())[0]


class _HandedIn:
    """A collector of gauges somebody else has read."""

    def __init__(self, gauges: list[Gauge]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        for gauge in self._gauges:
            names = list(gauge.samples[0][0]) if gauge.samples else []
            family = GaugeMetricFamily(gauge.name, gauge.help, labels=names)
            for labels, value in gauge.samples:
                family.add_metric([labels[name] for name in names], value)
            yield family
