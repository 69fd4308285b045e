"""What Prometheus is told: each number is the one the database or the program holds, and no label can grow for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event

from backend import metrics
from backend.store import Store, figures, workers
from backend.tables import RoundStatus, Trigger, Worker
from tests.backend import rows
from tests.backend.conftest import World
from tests.backend.web import BEARER, HOOK, annotation_body, serve

on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)

Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Numbers:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def counted(name: str, **labels: str) -> float:
    return parsed(metrics.exposition().decode()).get((name, tuple(sorted(labels.items()))), 0.0)


def of(gauges: list[metrics.Gauge], name: str, **labels: str) -> float:
    (found,) = [value for gauge in gauges if gauge.name == name for at, value in gauge.samples if dict(at) == labels]
    return found


def known(store: Store, minutes: float = 0) -> list[metrics.Gauge]:
    with store.read() as s:
        return figures.gauges(s, lease_seconds=60, now=rows.NOW + timedelta(minutes=minutes))


def add(store: Store, *given: Any) -> None:
    for row in given:
        with store.begin() as s:
            s.add(row)


# --------------------------------------------------------------------------------------------- from the database


def test_an_empty_database_has_numbers_too(store: Store) -> None:
    assert of(known(store), "wardround_oldest_unfinished_round_seconds") == 0
    assert parsed(metrics.exposition(known(store)).decode())


def test_what_the_database_holds_is_what_is_told(store: Store) -> None:
    add(
        store,
        rows.project(reconciled_at=rows.NOW - timedelta(seconds=30)),
        rows.project(id=2),
        *(rows.task(id=number) for number in range(1, 6)),
        rows.task(id=6, problem="broken"),
        rows.task(id=7, deleted_at=rows.NOW),
        *(rows.task(id=number, held_out=True) for number in (8, 9, 10)),
        rows.annotation(id=1, task_id=1),
        rows.annotation(id=2, task_id=1),
        rows.annotation(id=3, task_id=2, skipped=True),
        rows.annotation(id=4, task_id=3, deleted_at=rows.NOW),
        rows.annotation(id=8, task_id=8),
        rows.annotation(id=18, task_id=8),
        rows.annotation(id=9, task_id=9, problem="no mask"),
        rows.a_round(number=0),
        rows.a_round(number=1, status=RoundStatus.failed),
        rows.a_round(number=2, status=RoundStatus.trained),
    )
    told = known(store, minutes=2)
    assert of(told, "wardround_rounds", project="1", status="done") == 1
    assert of(told, "wardround_rounds", project="1", status="trained") == 1
    assert of(told, "wardround_rounds", project="2", status="failed") == 0
    assert of(told, "wardround_oldest_unfinished_round_seconds") == 120
    assert of(told, "wardround_last_pull_seconds", project="1") == 150
    assert of(told, "wardround_last_pull_seconds", project="2") == 120  # never: since it was connected
    assert of(told, "wardround_pool_tasks", project="1") == 3
    assert of(told, "wardround_pool_tasks", project="2") == 0
    assert of(told, "wardround_annotations", project="1") == 4
    assert of(told, "wardround_held_out_annotated_tasks", project="1") == 1


def test_a_silent_round_and_a_silent_worker_are_seen(store: Store) -> None:
    from backend.store import rounds

    add(store, rows.project(), rows.a_round(status=RoundStatus.selected))
    assert [gauge.samples for gauge in known(store) if gauge.name == "wardround_round_silent_seconds"] == [[]]
    with store.begin() as s:
        assert rounds.claim(s, 1, "host:1", lease_seconds=20)  # as one whose lease of 60 began 40 seconds ago
        workers.beat(s, "host:1", lanes="training", device="cpu", version="0.1.0", started_at=rows.NOW)
    add(store, Worker(name="old:1", lanes="scoring", device="cpu", version="0", started_at=rows.NOW, seen=0.0))
    told = known(store)
    assert 40 <= of(told, "wardround_round_silent_seconds", project="1") < 60
    assert 0 <= of(told, "wardround_worker_silent_seconds", worker="host:1", lanes="training") < 60
    assert of(told, "wardround_worker_silent_seconds", worker="old:1", lanes="scoring") > 1e9


def test_the_dice_is_the_serving_versions_as_last_measured(store: Store) -> None:
    add(
        store,
        rows.project(),
        rows.version(number=1),
        rows.version(number=2, serving=True),
        rows.a_round(number=0, candidate_id=1, evaluation={"candidate": {"dice": 0.1}}),
        rows.a_round(number=1, candidate_id=2, evaluation={"candidate": {"dice": 0.5}, "incumbent": {"dice": 0.2}}),
    )
    assert of(known(store), "wardround_held_out_dice", project="1") == 0.5
    assert of(known(store), "wardround_serving_version", project="1") == 2
    kept = {"candidate": {"dice": 0.3}, "incumbent": {"dice": 0.6}}
    add(
        store,
        rows.version(number=3),
        rows.a_round(number=2, candidate_id=3, incumbent_id=2, evaluation=kept),
        rows.a_round(number=3, candidate_id=2, trigger=Trigger.rollback, evaluation=None),
        rows.a_round(number=4, incumbent_id=2, evaluation={}),
    )
    assert of(known(store), "wardround_held_out_dice", project="1") == 0.6


def test_a_scrape_asks_as_often_however_much_there_is_and_loads_no_row(store: Store) -> None:
    asked: list[str] = []
    fetched: list[object] = []
    event.listen(store.engine, "before_cursor_execute", lambda _c, _cur, statement, *_: asked.append(statement))
    add(store, rows.project(), rows.version(serving=True))
    asked.clear()
    known(store)
    few = len(asked)
    add(
        store,
        *(rows.task(id=number) for number in range(1, 60)),
        *(rows.annotation(id=n, task_id=n) for n in range(1, 30)),
    )
    add(store, *(rows.a_round(number=number, candidate_id=1) for number in range(20)))
    asked.clear()
    with store.read() as s:
        event.listen(s, "loaded_as_persistent", lambda _s, row: fetched.append(row))
        figures.gauges(s, lease_seconds=60, now=rows.NOW)
    assert len(asked) == few
    assert fetched == []


# -------------------------------------------------------------------------------------------------- over HTTP


def test_metrics_need_the_token_and_hold_gauges_and_counters(world: World) -> None:
    client = serve(world)
    assert client.get("/metrics").status_code == 401
    answer = client.get("/metrics", headers=BEARER)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    told = parsed(answer.text)
    assert told["wardround_pool_tasks", (("project", "1"),)] == 0
    assert told["wardround_free_disk_bytes", ()] > 0
    assert any(name == "wardround_http_requests_total" for name, _ in told)


@on_sqlite
def test_requests_are_counted_by_route_and_not_by_path(world: World) -> None:
    client = serve(world)
    client.headers = BEARER
    shown = {"route": "/api/rounds/{round_id}", "method": "GET", "status": "404"}
    before = counted("wardround_http_requests_total", **shown)
    nowhere = {"route": "none", "method": "other", "status": "404"}
    lost = counted("wardround_http_requests_total", **nowhere)
    for number in range(50, 53):
        client.get(f"/api/rounds/{number}")
        client.request(f"BREW{number}", f"/coffee/{number}")
    assert counted("wardround_http_requests_total", **shown) == before + 3
    assert counted("wardround_http_requests_total", **nowhere) == lost + 3
    told = metrics.exposition().decode()
    assert "coffee" not in told
    assert "BREW" not in told
    assert counted("wardround_http_request_seconds_count", route="/api/rounds/{round_id}", method="GET") >= 3


@on_sqlite
def test_what_breaks_unexpectedly_is_counted_as_500(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from backend import report

    monkeypatch.setattr(report, "queue_of", lambda *_: 1 / 0)
    broken = {"route": "/api/projects/{project_id}/queue", "method": "GET", "status": "500"}
    before = counted("wardround_http_requests_total", **broken)
    assert serve(world).get("/api/projects/1/queue", headers=BEARER).status_code == 500
    assert counted("wardround_http_requests_total", **broken) == before + 1


@on_sqlite
def test_webhooks_are_counted_by_action_and_outcome(world: World) -> None:
    world.label_studio.add_task(1)
    client = serve(world)
    client.headers = HOOK
    expected = [
        (annotation_body(world, 9, 1), "ANNOTATION_CREATED", "stored"),
        ({"action": "ANNOTATIONS_DELETED", "project": {"id": 77}, "annotations": []}, "ANNOTATIONS_DELETED", "ignored"),
        ({"action": "MADE_UP_BY_SOMEBODY", "project": {"id": 77}}, "other", "ignored"),
        ({"action": "START_TRAINING", "project": {"id": 1}}, "START_TRAINING", "opened"),
        ({"action": "START_TRAINING", "project": {"id": 1}}, "START_TRAINING", "running"),
    ]
    for body, action, outcome in expected:
        before = counted("wardround_webhook_events_total", action=action, outcome=outcome)
        assert client.post("/webhook", json=body).status_code == 201
        assert counted("wardround_webhook_events_total", action=action, outcome=outcome) == before + 1


@pytest.mark.parametrize(
    ("observe", "name", "labels", "seconds"),
    [
        (lambda: metrics.observed_predictions(stored=1), "predictions_served", {"source": "stored"}, ""),
        (lambda: metrics.observed_predictions(computed=1), "predictions_served", {"source": "computed"}, ""),
        (
            lambda: metrics.observed_step("train", "done", 3.0),
            "round_steps",
            {"step": "train", "outcome": "done"},
            "round_step_seconds",
        ),
        (
            lambda: metrics.observed_celery_task("tick", "failed", 3.0),
            "celery_tasks",
            {"task": "tick", "outcome": "failed"},
            "celery_task_seconds",
        ),
        (lambda: metrics.observed_hand_back("DiskFull"), "round_hand_backs", {"reason": "DiskFull"}, ""),
    ],
)
def test_what_is_observed_is_counted_once(
    observe: Callable[[], None], name: str, labels: dict[str, str], seconds: str
) -> None:
    before = counted(f"wardround_{name}_total", **labels)
    whose = {key: value for key, value in labels.items() if key != "outcome"}
    spent = counted(f"wardround_{seconds}_sum", **whose)
    observe()
    assert counted(f"wardround_{name}_total", **labels) == before + 1
    assert counted(f"wardround_{seconds}_sum", **whose) == spent + (3.0 if seconds else 0.0)


def test_a_celery_task_that_raises_has_failed() -> None:
    before = counted("wardround_celery_tasks_total", task="x", outcome="failed")
    with pytest.raises(ZeroDivisionError), metrics.timed_celery_task("x"):
        _ = 1 / 0
    with metrics.timed_celery_task("x"):
        pass
    assert counted("wardround_celery_tasks_total", task="x", outcome="failed") == before + 1
    assert counted("wardround_celery_tasks_total", task="x", outcome="done") >= 1


# --------------------------------------------------------------------------------------------- several processes

CHILD = """
from backend import metrics

while True:
    metrics.observed_step("train", "done", 2.0)
    print(flush=True)
    input()
"""
PARENT = f"""
import pathlib, subprocess, sys
from backend import metrics

def start():
    one = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert one.stdout.readline().strip() == b""  # it has counted
    return one

folder = pathlib.Path(sys.argv[1])
metrics.set_up_multiprocess(folder)
for _ in range(4):  # one after the other: each goes on counting where the last one, killed, left off
    one = start()
    one.kill()
    one.wait()
together = [start(), start()]
for one in together:  # each counts once more, and overwrites nothing of the other's
    one.stdin.write(b"\\n")
    one.stdin.flush()
    assert one.stdout.readline().strip() == b""
for one in together:
    one.kill()
    one.wait()
metrics.observed_step("train", "done", 2.0)
print(metrics.exposition().decode())
print("#files", len(list(folder.glob("*.db"))))
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PROMETHEUS_MULTIPROC_DIR"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)


def test_processes_of_one_program_are_added_up_and_leave_no_file_each(tmp_path: Path) -> None:
    (tmp_path / "counter_0.db").write_bytes(b"what an earlier run left")
    done = python(PARENT, str(tmp_path))
    assert done.returncode == 0, done.stderr
    told, _, files = done.stdout.partition("#files")
    assert parsed(told)["wardround_round_steps_total", (("outcome", "done"), ("step", "train"))] == 9
    assert parsed(told)["wardround_round_step_seconds_sum", (("step", "train"),)] == 18
    assert int(files) <= 2 * 3  # a counter's and a histogram's for each process that lived at the same time


def test_importing_and_observing_nothing_starts_no_client() -> None:
    assert (
        python("import sys; from backend import metrics; assert 'prometheus_client' not in sys.modules").returncode == 0
    )


def test_counting_in_files_cannot_begin_too_late(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="imported already"):
        metrics.set_up_multiprocess(tmp_path)
