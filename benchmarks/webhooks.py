"""How many webhooks a second two processes of the API store on PostgreSQL, and how long each makes Label Studio wait.

    PYTHONPATH=. python benchmarks/webhooks.py           (or `make bench`; --help lists the options)

Everything real but Label Studio: two APIs as `wardround api` starts them, each secret checked, and one sending process
that gives each request a connection of its own, as Label Studio does. Requests leave at a fixed rate, whether or not
earlier ones were answered, and each brings a new annotation of a task that is not known yet. Afterwards the database
must hold every one. PostgreSQL is the server of the tests (WARDROUND_TEST_POSTGRES_URL). The exit status is 1 when a
target is missed, and 0 with a loud word when there is no PostgreSQL.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from backend.label_studio.masks import encode
from backend.store import Store, annotations, projects
from backend.tables import Project
from backend.wiring import SECRET_HEADER
from benchmarks._state import LABEL_CONFIG, STORED_BYTES, mask_of_size
from benchmarks.growth import postgresql

ROOT = Path(__file__).resolve().parents[1]
PROJECT = 1
TARGET_RATE = 100.0  # webhooks a second
LONGEST_WAIT_MS = 1000.0  # Label Studio gives up then, and the event is lost
SENDERS = 32  # requests under way at most


@dataclass(frozen=True)
class Sent:
    """What became of the webhooks of one size."""

    size_px: int
    rate: float
    times_ms: np.ndarray
    refused: int


def bodies(size_px: int, first_id: int, count: int, rng: np.random.Generator) -> list[bytes]:
    """Webhooks as Label Studio sends them, each of a new annotation of a new task."""
    codes = [encode(_mask(size_px, rng)) for _ in range(16)]
    return [_body(size_px, first_id + number, codes[number % len(codes)]) for number in range(count)]


def _mask(size_px: int, rng: np.random.Generator) -> np.ndarray:
    ragged = mask_of_size(rng, STORED_BYTES)
    step = ragged.shape[0] // size_px
    return np.ascontiguousarray(ragged[::step, ::step])


def _body(size_px: int, number: int, rle: list[int]) -> bytes:
    moment = (datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=number)).isoformat()
    region = {
        "id": f"r{number}", "from_name": "brush", "to_name": "image", "type": "brushlabels",
        "original_width": size_px, "original_height": size_px, "image_rotation": 0,
        "value": {"format": "rle", "rle": rle, "brushlabels": ["Lesion"]},
    }  # fmt: skip
    annotation = {
        "id": number, "task": number, "completed_by": 1, "lead_time": 12.5, "created_at": moment,
        "updated_at": moment, "was_cancelled": False, "parent_prediction": None, "result": [region],
    }  # fmt: skip
    task = {"id": number, "data": {"image": f"/data/upload/{number}.png", "group": f"patient {number // 3}"}}
    project = {"id": PROJECT, "label_config": LABEL_CONFIG}
    return json.dumps(
        {"action": "ANNOTATION_CREATED", "annotation": annotation, "task": task, "project": project}
    ).encode()


def send(ports: list[int], secret: str, size_px: int, found: list[bytes], rate: float) -> Sent:
    """Send each at its time, to the processes in turn; times are from when a request was due."""
    start = time.perf_counter() + 0.1

    def one(number: int) -> tuple[float, bool]:
        due = start + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        connection = http.client.HTTPConnection("127.0.0.1", ports[number % len(ports)], timeout=60)
        try:
            headers = {"Content-Type": "application/json", SECRET_HEADER: secret}
            connection.request("POST", "/webhook", found[number], headers)
            response = connection.getresponse()
            response.read()
            stored = response.status == 201
        except OSError:
            stored = False
        finally:
            connection.close()
        return (time.perf_counter() - due) * 1000, stored

    with ThreadPoolExecutor(SENDERS) as threads:
        answers = list(threads.map(one, range(len(found))))
    took = time.perf_counter() - start
    times_ms = np.array([each for each, _ in answers])
    return Sent(size_px, len(found) / took, times_ms, sum(not stored for _, stored in answers))


def missing(store: Store, first_id: int, count: int) -> int:
    """How many of the annotations are not in the database, whole."""
    with store.read() as s:
        stored = {one.id for one, _, masks in annotations.usable(s, PROJECT) if masks}
    return len(set(range(first_id, first_id + count)) - stored)


# ---------------------------------------------------------------------------------------------------------- processes


@contextmanager
def api(folder: Path, url: str, secret: str, broker_url: str) -> Iterator[int]:
    """A process of the API; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "WARDROUND_DATA_DIR": str(folder),
        "WARDROUND_DATABASE_URL": url,
        "WARDROUND_BROKER_URL": broker_url,
        "WARDROUND_LABEL_STUDIO_URL": "http://127.0.0.1:9",  # nobody: a webhook must not need it
        "WARDROUND_LABEL_STUDIO_TOKEN": "unused",
        "WARDROUND_API_TOKEN": secrets.token_hex(20),
        "WARDROUND_WEBHOOK_SECRET": secret,
        "WARDROUND_API_PORT": str(port),
        "WARDROUND_LOG_LEVEL": "WARNING",
    }
    process = subprocess.Popen([sys.executable, "-m", "backend.cli", "api"], cwd=folder, env=environment)
    try:
        _wait_for(process, port)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the API did not start")


def connect(store: Store) -> None:
    store.migrate()
    project = Project(
        id=PROJECT, title="benchmark", label_config=LABEL_CONFIG, prompts={}, group_field="group",
        prompt_field="prompt", connected_at=datetime.now(UTC),
    )  # fmt: skip
    with store.begin() as s:
        projects.save(s, project)


def report(sent: Sent, lost: int) -> bool:
    """Print one line; returns whether the target is met."""
    p50, p99 = np.quantile(sent.times_ms, (0.5, 0.99))
    met = sent.rate >= TARGET_RATE and p99 <= LONGEST_WAIT_MS and not lost and not sent.refused
    print(
        f"{sent.size_px:>4} px: {sent.rate:6.1f} webhooks a second, p50 {p50:6.1f} ms, p99 {p99:6.1f} ms, max "
        f"{sent.times_ms.max():6.1f} ms, refused {sent.refused}, not in the database {lost}   "
        f"target {TARGET_RATE:.0f}/s, p99 <= {LONGEST_WAIT_MS:.0f} ms, none lost: {'met' if met else 'MISSED'}"
    )
    return met


def measure(folder: Path, url: str, options: argparse.Namespace) -> bool:
    store, secret, rng = Store(url), secrets.token_hex(20), np.random.default_rng(0)
    connect(store)
    met = True
    with ExitStack() as processes:
        ports = [processes.enter_context(api(folder, url, secret, options.broker_url)) for _ in range(2)]
        first_id = 1
        for size_px in (64, 512):
            count = int(options.rate * options.seconds)
            send(ports, secret, size_px, bodies(size_px, first_id, 20, rng), options.rate)  # warm
            first_id += 20
            sent = send(ports, secret, size_px, bodies(size_px, first_id, count, rng), options.rate)
            met &= report(sent, missing(store, first_id, count))
            first_id += count
    store.close()
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=110.0, help="webhooks sent a second (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="for so long, each size (default: %(default)s)")
    parser.add_argument("--broker-url", default="", help="empty: the embedded broker")
    options = parser.parse_args()
    import psycopg

    try:
        with tempfile.TemporaryDirectory(prefix="wardround-bench-") as folder, postgresql(Path(folder)) as url:
            print(f"load average: {', '.join(f'{one:.1f}' for one in os.getloadavg())} on {os.cpu_count()} cores")
            return 0 if measure(Path(folder), url, options) else 1
    except psycopg.OperationalError as error:
        print(f"!!! NOT MEASURED: PostgreSQL does not answer: {error}", file=sys.stderr)
        return 0


if __name__ == "__main__":
    sys.exit(main())
