"""Celery tasks: light, patient with brokers and Label Studio, and never in the way of a round's own process."""

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backend import annotations, context, devices, rounds, worker
from backend.context import celery_config
from backend.errors import DeviceBusy
from backend.label_studio.errors import LabelStudioUnreachable
from backend.settings import Settings
from backend.store import projects, workers
from backend.store import rounds as round_rows
from backend.tables import Project, RoundStatus
from tests.backend import rows
from tests.backend.conftest import World
from tests.backend.fakes import LABEL_CONFIG, START

ROOT = Path(__file__).resolve().parents[2]
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


def settings(tmp_path: Path, **changed: Any) -> Settings:
    given: dict[str, Any] = {
        "data_dir": tmp_path, "label_studio_url": "http://127.0.0.1:9", "label_studio_token": "a-token",
    }  # fmt: skip
    return Settings(**(given | changed))


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT,
        env={"PATH": os.defpath, **environment},
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ light to load


@pytest.mark.parametrize("module", ["worker", "app", "cli"])
def test_importing_an_entry_point_imports_no_torch(module: str) -> None:
    done = python(
        f"import sys, backend.{module}\n"
        "heavy = {'torch', 'open_clip', 'label_studio_sdk', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert done.returncode == 0, done.stderr


def test_settings_are_read_when_celery_first_needs_them_and_not_before() -> None:
    done = python(
        "from backend import worker\n"
        "from backend.errors import BadSettings\n"
        "print('imported')\n"
        "try:\n    worker.app.conf.broker_url\n"
        "except BadSettings as error:\n    print(error)",
        WARDROUND_API_PORT="none",
    )
    imported, complaint = done.stdout.splitlines()
    assert imported == "imported", done.stderr
    assert "WARDROUND_API_PORT" in complaint


def test_messages_are_acknowledged_early_and_no_broker_repeats_a_long_round(tmp_path: Path) -> None:
    for broker_url in ("", "redis://127.0.0.1/0"):
        config = celery_config(settings(tmp_path, broker_url=broker_url))
        assert config["task_acks_late"] is False
        assert config["task_ignore_result"] is True


def test_the_beat_asks_for_tasks_that_the_worker_has(tmp_path: Path) -> None:
    config = celery_config(settings(tmp_path, reconcile_seconds=7))
    for entry in config["beat_schedule"].values():
        assert entry["task"] in worker.app.tasks
        # Ticks that nobody took must not pile up.
        assert entry["options"]["expires"] == entry["schedule"]
    assert config["beat_schedule"]["reconcile"]["schedule"] == 7
    sent = {"forget_versions", "run_round", "score_shards", "open_if_due", "pull"}
    assert {f"wardround.{name}" for name in sent} <= set(worker.app.tasks)


# ----------------------------------------------------------------------------------------- the broker is a nudge


def enqueue_in_time(built: context.Context, seconds: float = 5.0) -> None:
    """Send a nudge; fails when it blocks, as a webhook would while an annotator waits."""
    done: list[BaseException | None] = []

    def send() -> None:
        try:
            built.enqueue("open_if_due", 1)
            done.append(None)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the webhook would have answered 500
            done.append(error)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(seconds)
    assert done == [None], done or "still waiting for the broker"


@pytest.mark.parametrize("broker_url", ["redis://127.0.0.1:9/0", "amqp://guest:hidden@127.0.0.1:9//"])
def test_a_broker_that_is_down_is_only_logged(
    tmp_path: Path, broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    built = context.build(settings(tmp_path, broker_url=broker_url))
    try:
        enqueue_in_time(built)
    finally:
        built.close()
    assert "the broker took no message open_if_due" in caplog.text
    assert "hidden" not in caplog.text


def _disk_full(_handle: int) -> None:
    raise OSError(errno.ENOSPC, "no space left")


def test_a_broker_folder_that_cannot_be_written_is_only_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    built = context.build(settings(tmp_path))
    try:
        enqueue_in_time(built)
        folder = built.settings.broker_folder
        assert folder is not None
        assert len(list(folder.glob("*.msg"))) == 1
        with monkeypatch.context() as full:
            full.setattr(os, "fsync", _disk_full)
            enqueue_in_time(built)
        assert len(list(folder.glob("*.msg"))) == 1
        shutil.rmtree(folder)
        folder.write_text("in the way")
        enqueue_in_time(built)
    finally:
        built.close()
    assert caplog.text.count("the broker took no message open_if_due") == 2


# ------------------------------------------------------------------------------------- the process of a round


@pytest.fixture
def looking(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The worker looks at this world, in which a second project is connected."""
    monkeypatch.setattr(worker, "_ctx", lambda: world.ctx)
    with world.ctx.store.begin() as s:
        second = Project(
            id=2, title="second", label_config=LABEL_CONFIG, prompts={}, group_field="group", prompt_field="prompt",
            connected_at=START,
        )  # fmt: skip
        projects.save(s, second)
    return world


@pytest.fixture
def childlike(looking: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], list[list[str]]]]:
    """Let the worker start a process of the test's; returns the commands it meant to run."""
    spawn = subprocess.Popen

    def instead(code: str) -> list[list[str]]:
        meant: list[list[str]] = []

        def start(command: list[str], **_: Any) -> Any:
            meant.append(command)
            return spawn([sys.executable, "-c", code])

        monkeypatch.setattr(subprocess, "Popen", start)
        return meant

    yield instead
    worker._stopping.clear()
    worker._children.clear()
    worker._at_work.clear()
    worker._working.clear()


def opened(world: World, status: RoundStatus = RoundStatus.selected, project_id: int = 1) -> int:
    """A round that waits for its next step."""
    with world.ctx.store.begin() as s:
        s.add(row := rows.a_round(project_id=project_id, status=status))
        s.flush()
        return row.id


def test_a_round_runs_in_a_process_of_its_own_and_its_end_is_reported(
    looking: World, childlike: Callable[[str], list[list[str]]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    meant = childlike("import sys; sys.exit(75)")
    round_id = opened(looking)
    worker.run_round(round_id)
    (command,) = meant
    assert command[0] == sys.executable
    assert command[1:5] == ["-m", "backend.cli", "run-round", str(round_id)]
    assert command[5:] == ["--parent", str(os.getpid()), "--lane", "training"]
    assert f"{round_id} ran in process" in caplog.text and "exit status 75" in caplog.text
    assert worker._children == {}


SLEEP = "import time; time.sleep(60)"


def test_a_worker_that_shuts_down_stops_its_rounds_and_begins_no_other(
    looking: World, childlike: Callable[[str], list[list[str]]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    meant = childlike(SLEEP)
    first, second = opened(looking), opened(looking, project_id=2)
    thread = threading.Thread(target=worker.run_round, args=(first,))
    thread.start()
    while not worker._children:
        time.sleep(0.001)
    worker._stop_children()
    thread.join(20)
    assert not thread.is_alive()
    assert f"exit status {-signal.SIGTERM}" in caplog.text
    worker.run_round(second)
    assert len(meant) == 1


def test_a_round_that_starts_while_the_worker_shuts_down_is_stopped_as_well(
    looking: World, childlike: Callable[[str], list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    childlike(SLEEP)
    spawn = subprocess.Popen
    round_id = opened(looking)

    def start_late(command: list[str], **_: Any) -> Any:
        child = spawn(command)
        worker._stop_children()  # the signal comes between the start and the entry in the list
        return child

    monkeypatch.setattr(subprocess, "Popen", start_late)
    thread = threading.Thread(target=worker.run_round, args=(round_id,), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "the worker waits for a whole round before it ends"


def test_one_training_at_a_time_and_looking_after_the_rest_goes_on(
    looking: World, childlike: Callable[[str], list[list[str]]]
) -> None:
    """The thread of a message that finds its lane full stays free; the round waits in the database."""
    meant = childlike(SLEEP)
    first, second = opened(looking), opened(looking, project_id=2)
    thread = threading.Thread(target=worker.run_round, args=(first,))
    thread.start()
    while not worker._children:
        time.sleep(0.001)
    worker.run_round(second)
    worker.run_round(first)
    worker.tick()
    assert len(meant) == 1
    looking.sent.clear()
    for child in worker._children.values():
        child.kill()
    thread.join(20)
    assert ("run_round", second) in looking.sent, "whoever leaves the lane looks for who waits"


def test_a_rescoring_does_not_wait_for_a_training(looking: World, childlike: Callable[[str], list[list[str]]]) -> None:
    meant = childlike(SLEEP)
    waiting = [opened(looking), opened(looking, RoundStatus.decided, project_id=2)]
    threads = [threading.Thread(target=worker.run_round, args=(round_id,)) for round_id in waiting]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(meant) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(command[-1] for command in meant) == ["scoring", "training"]
    worker._stop_children()
    for thread in threads:
        thread.join(20)


def test_a_device_that_another_process_trains_on_is_left_alone(
    looking: World, childlike: Callable[[str], list[list[str]]]
) -> None:
    meant = childlike("pass")
    folder = looking.ctx.settings.data_dir / "locks"
    with devices.held(folder, "cpu"):
        looking.sent.clear()
        worker.run_round(opened(looking))
        assert (meant, looking.sent) == ([], []), "calling for it again at once would go round and round"
    worker.run_round(1)
    assert len(meant) == 1


def test_a_device_is_busy_until_the_last_process_on_it_has_ended(tmp_path: Path) -> None:
    with devices.held(tmp_path, "cuda:0") as lock:
        assert lock is not None
        child = subprocess.Popen([sys.executable, "-c", SLEEP], pass_fds=[lock])
    with pytest.raises(DeviceBusy), devices.held(tmp_path, "cuda:0"):
        pass
    with devices.held(tmp_path, "cuda:1"):
        pass
    child.kill()
    child.wait()
    with devices.held(tmp_path, "cuda:0"):
        pass


def test_a_worker_says_that_it_is_alive_until_it_stops(looking: World) -> None:
    threading.Thread(target=worker._keep_saying_alive, daemon=True).start()
    deadline = time.monotonic() + 20
    while not (alive := told_alive(looking)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert alive == [worker.worker_name()]
    worker._stopping.set()
    worker._say_goodbye()
    worker._stopping.clear()
    assert told_alive(looking) == []


def told_alive(world: World) -> list[str]:
    with world.ctx.store.read() as s:
        return [row.name for row, age in workers.all_with_age(s) if age < 60]


# --------------------------------------------------------------------------------------------- reconciliation


@on_sqlite
@pytest.mark.parametrize("error", [LabelStudioUnreachable("nobody answers"), ZeroDivisionError("a bug")])
def test_trouble_with_one_project_does_not_stop_the_others(
    looking: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    seen: list[int] = []

    def reconcile(_ctx: object, project: Project) -> None:
        seen.append(project.id)
        if project.id == 1:
            raise error

    monkeypatch.setattr(annotations, "reconcile", reconcile)
    left = rounds.open_now(looking.ctx, 1)
    looking.sent.clear()
    worker.reconcile()
    assert looking.sent == [("pull", 1), ("pull", 2)], "each by itself: a slow one holds up no other"
    for _, project_id in list(looking.sent):
        worker.pull(project_id)
    assert seen == [1, 2]
    assert str(error) in caplog.text
    worker.tick()
    assert ("run_round", left) in looking.sent, "a round that nobody runs is found whatever Label Studio does"


def test_a_reconciliation_opens_the_round_that_is_due(looking: World) -> None:
    looking.label_studio.add_task(1)
    worker.pull(1)
    assert {name for name, *_ in looking.sent} == {"run_round"}
    with looking.ctx.store.read() as s:
        assert [task.id for task in projects.all_tasks(s, 1)] == [1]


@on_sqlite
def test_a_nudge_opens_a_round_only_when_one_is_due(looking: World) -> None:
    worker.open_if_due(1)
    assert looking.sent == [], "without tasks there is nothing to publish"
    looking.label_studio.add_task(1)
    looking.pull()
    for _ in range(3):
        worker.open_if_due(1)
    assert [name for name, *_ in looking.sent] == ["run_round"]


def test_a_call_for_the_next_lane_may_come_before_the_last_process_is_gone(
    looking: World, childlike: Callable[[str], list[list[str]]]
) -> None:
    meant = childlike(SLEEP)
    round_id = opened(looking)
    threads = [threading.Thread(target=worker.run_round, args=(round_id,)) for _ in range(2)]
    threads[0].start()
    while not worker._children:
        time.sleep(0.001)
    with looking.ctx.store.begin() as s:
        for status in (RoundStatus.trained, RoundStatus.evaluated, RoundStatus.decided):
            round_rows.get(s, round_id).status = status
            s.flush()
    threads[1].start()
    deadline = time.monotonic() + 20
    while len(meant) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [command[-1] for command in meant] == ["training", "scoring"]
    worker._stop_children()
    for thread in threads:
        thread.join(20)
