"""A Celery application on the embedded broker, for a real worker in a process of its own: not a test."""

import os
from pathlib import Path

from celery import Celery
from kombu import Queue

from backend import broker

broker.register()
folder = Path(os.environ["BROKER_FOLDER"])
app = Celery("round-trip", broker=broker.URL)
app.conf.update(
    broker_transport_options=broker.transport_options(folder / "messages", poll_seconds=0.02),
    task_queues=[Queue("control"), Queue("train")],
    task_default_queue="control",
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
)


@app.task(name="leave_a_note")
def leave_a_note(name: str) -> None:
    (folder / name).touch()
