"""The embedded broker: nothing lost, nothing twice, and nothing unreadable stops a worker."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from queue import Empty
from types import SimpleNamespace
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue
from kombu.exceptions import ChannelError

from backend import broker

ROOT = Path(__file__).resolve().parents[2]
QUEUE = Queue("train", Exchange("train", type="direct"), routing_key="train")
N_PUBLISHERS = 4
N_MESSAGES = 60
# Far above a page and a pipe: a reader that could see half a message would.
PAYLOAD = "x" * 500_000


def connect(folder: Path) -> Connection:
    broker.register()
    return Connection(broker.URL, transport_options=broker.transport_options(folder, poll_seconds=0.01))


def publish(folder: Path, bodies: list[Any]) -> None:
    with connect(folder) as connection:
        producer = connection.Producer()
        for body in bodies:
            producer.publish(body, exchange=QUEUE.exchange, routing_key="train", declare=[QUEUE])


def publish_many(folder: Path, publisher: int) -> None:
    publish(folder, [{"key": f"{publisher}-{i}", "filling": PAYLOAD} for i in range(N_MESSAGES)])


def read_all(folder: Path, publishing: threading.Event | None = None) -> list[Any]:
    """Bodies taken until the queue is empty, and nobody publishes any more."""
    bodies = []
    with connect(folder) as connection:
        channel = connection.default_channel
        QUEUE(channel).declare()
        while True:
            still = publishing is not None and publishing.is_set()
            message = channel.basic_get("train", no_ack=True)
            if message is not None:
                bodies.append(message.decode())
            elif not still:
                return bodies


def test_concurrent_publishers_and_readers_lose_and_double_nothing(tmp_path: Path):
    spawn = multiprocessing.get_context("spawn")
    publishers = [spawn.Process(target=publish_many, args=(tmp_path, p)) for p in range(N_PUBLISHERS)]
    publishing = threading.Event()
    publishing.set()
    taken: list[list[Any]] = [[], []]

    def read(slot: int) -> None:
        taken[slot] = read_all(tmp_path, publishing)

    readers = [threading.Thread(target=read, args=(slot,)) for slot in range(len(taken))]
    for reader in readers:
        reader.start()
    for publisher in publishers:
        publisher.start()
    for publisher in publishers:
        publisher.join()
    publishing.clear()
    for reader in readers:
        reader.join()

    bodies = taken[0] + taken[1]
    expected = {f"{p}-{i}": 1 for p in range(N_PUBLISHERS) for i in range(N_MESSAGES)}
    assert Counter(body["key"] for body in bodies) == expected
    assert all(body["filling"] == PAYLOAD for body in bodies)
    assert [path.name for path in tmp_path.iterdir()] == ["bindings"]


def test_messages_come_in_the_order_they_were_sent(tmp_path: Path):
    publish(tmp_path, list(range(20)))
    publish(tmp_path, list(range(20, 30)))
    assert read_all(tmp_path) == list(range(30))


def test_names_follow_the_wall_clock_not_one_that_restarts_with_the_machine(tmp_path: Path, monkeypatch):
    publish(tmp_path, ["before the restart"])
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    publish(tmp_path, ["after"])
    assert read_all(tmp_path) == ["before the restart", "after"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda good: b"", id="empty"),
        pytest.param(lambda good: good[: len(good) // 2], id="truncated"),
        pytest.param(lambda good: b"\xff\xfe\x00", id="not text"),
        pytest.param(lambda good: b"[]", id="not a message"),
        pytest.param(lambda good: b'{"body": "?"}', id="no properties"),
        pytest.param(lambda good: good.replace(b'"body": "', b'"body": "A'), id="body not base64"),
    ],
)
def test_an_unreadable_message_is_set_aside_and_the_next_one_delivered(tmp_path: Path, content, caplog):
    publish(tmp_path, ["spoilt", "good"])
    first = min(tmp_path.glob("*.msg"))
    first.write_bytes(content(first.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert read_all(tmp_path) == ["good"]
    assert [path.name for path in (tmp_path / broker.UNREADABLE_FOLDER).iterdir()] == [first.name]
    assert first.name in caplog.text


def test_a_message_being_written_is_not_seen(tmp_path: Path):
    publish(tmp_path, ["whole"])
    (tmp_path / ".writing.0").write_text("{")
    assert read_all(tmp_path) == ["whole"]


def test_a_full_disk_raises_and_leaves_nothing(tmp_path: Path, monkeypatch):
    publish(tmp_path, ["earlier"])

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ChannelError, match="No space left"), connect(tmp_path) as connection:
            connection.default_channel._put("train", {})
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".writing")]
    assert read_all(tmp_path) == ["earlier"]


def test_the_folder_is_private(tmp_path: Path):
    publish(tmp_path / "messages", [1])
    assert (tmp_path / "messages").stat().st_mode & 0o077 == 0


def test_two_folders_in_one_process_know_nothing_of_each_other(tmp_path: Path):
    publish(tmp_path / "one", [1])
    publish(tmp_path / "two", [2])
    assert read_all(tmp_path / "two") == [2]
    assert read_all(tmp_path / "one") == [1]


def bind(folder: Path, queue: str) -> None:
    with connect(folder) as connection:
        Queue(queue, Exchange("all", type="fanout"))(connection.default_channel).declare()


def bindings(folder: Path) -> set[str]:
    with connect(folder) as connection:
        return {row.queue for row in connection.default_channel.get_table("all")}


def test_bindings_made_at_the_same_time_are_all_kept(tmp_path: Path):
    spawn = multiprocessing.get_context("spawn")
    names = {f"queue-{i}" for i in range(6)}
    processes = [spawn.Process(target=bind, args=(tmp_path, name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert bindings(tmp_path) == names


def test_unreadable_bindings_are_made_again(tmp_path: Path):
    (tmp_path / "bindings").mkdir()
    (tmp_path / "bindings" / "all.exchange").write_text("[[")
    bind(tmp_path, "new")
    assert bindings(tmp_path) == {"new"}


@pytest.mark.parametrize("made_anew", [False, True])
def test_a_folder_that_vanishes_stops_neither_readers_nor_senders(tmp_path: Path, made_anew: bool):
    """Both have declared everything long ago, and will not do so again."""
    folder = tmp_path / "messages"
    with connect(folder) as reading, connect(folder) as sending:
        channel, producer = reading.default_channel, sending.Producer()
        QUEUE(channel).declare()
        producer.publish(1, exchange=QUEUE.exchange, routing_key="train", declare=[QUEUE])
        folder.rename(tmp_path / "away")
        if made_anew:
            folder.mkdir()
        assert channel.basic_get("train", no_ack=True) is None
        producer.publish(2, exchange=QUEUE.exchange, routing_key="train", declare=[QUEUE])
        message = channel.basic_get("train", no_ack=True)
        assert message is not None and message.decode() == 2
        assert folder.stat().st_mode & 0o077 == 0 or made_anew


def test_a_deleted_queue_keeps_neither_binding_nor_messages(tmp_path: Path):
    publish(tmp_path, [1, 2])
    with connect(tmp_path) as connection:
        channel = connection.default_channel
        QUEUE(channel).declare()
        channel.queue_delete("train")
        assert channel.get_table("train") == []
        with pytest.raises(Empty):
            channel._get("train")


def test_a_full_worker_is_not_left_waiting_for_the_whole_timeout(tmp_path: Path):
    """Celery acknowledges between two drains; a full prefetch must come back after one poll, not after the timeout."""
    with connect(tmp_path) as connection:
        connection.connect()
        asked: list[float | None] = []
        transport = connection.transport
        transport.channels[:] = [SimpleNamespace(qos=SimpleNamespace(can_consume=lambda: False))]
        parent = type(transport).__mro__[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parent, "drain_events", lambda self, connection, timeout=None: asked.append(timeout))
            transport.drain_events(connection, timeout=2.0)
            transport.channels[0].qos.can_consume = lambda: True
            transport.drain_events(connection, timeout=2.0)
        transport.channels.clear()
    assert asked == [0.01, 2.0]


def test_a_real_worker_does_every_task_on_both_queues(tmp_path: Path):
    environment = os.environ | {"BROKER_FOLDER": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "celery", "-A", "tests.backend.broker_app", "worker", "-P", "threads", "-c", "2"]
    expected = {f"note-{i}" for i in range(20)}
    (tmp_path / "messages").mkdir()
    (tmp_path / "messages" / "00000000000000000000_spoilt.control.msg").touch()
    send = (
        "from tests.backend.broker_app import leave_a_note as note\n"
        "for i in range(20): note.apply_async((f'note-{i}',), queue=('control', 'train')[i % 2])\n"
    )
    subprocess.run([sys.executable, "-c", send], check=True, env=environment, cwd=ROOT)
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [*command, "--without-gossip", "--without-mingle"], env=environment, cwd=ROOT, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 60
        while {path.name for path in tmp_path.glob("note-*")} != expected:
            assert worker.poll() is None, (tmp_path / "worker.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "worker.log").read_text()
            time.sleep(0.05)
    finally:
        worker.terminate()
        assert worker.wait(30) == 0
    assert not list((tmp_path / "messages").glob("*.msg"))
    assert list((tmp_path / "messages" / broker.UNREADABLE_FOLDER).iterdir())
