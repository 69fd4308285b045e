"""How long Label Studio, and the annotator behind it, wait for the API: idle, and while a training round runs.

    PYTHONPATH=. python benchmarks/latency.py            (or `make bench`; --help lists the options)

Everything real but Label Studio: the API as `wardround api` starts it, on SQLite and the embedded broker, with every
secret checked; and the process of a round as the worker starts it, with its politeness, training the tiny backbone on
512 × 512 px images without a pause. Each request opens a connection of its own, as Label Studio's do. The four kinds of
request take turns, first idle and then loaded, so both columns come from one run on one machine; the client shares its
cores with both, which makes the figures pessimistic. The exit status is 1 when a target is missed.
"""

import argparse
import base64
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
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from backend.label_studio.masks import encode
from backend.tables import RoundStatus
from backend.wiring import SECRET_HEADER
from benchmarks._state import ANNOTATED, LABEL_CONFIG, N_TASKS, SIDE_PX, STORED_BYTES, fill, mask_of_size, task_id

ROOT = Path(__file__).resolve().parents[1]
TIME_LIMIT_SECONDS = 75.0  # per column; a slow machine gets fewer requests
EX_TEMPFAIL = 75


@dataclass(frozen=True)
class Target:
    """A promise: this share of the requests is answered within so many milliseconds, also during a round."""

    quantile: float
    limit_ms: float


TARGETS = {
    "predict, stored": Target(0.5, 10.0),
    "health": Target(0.99, 50.0),
    "setup": Target(0.99, 300.0),
    "webhook": Target(0.99, 100.0),
}


@dataclass(frozen=True)
class Bench:
    """A state folder with its secrets, and the address of the API."""

    folder: Path
    port: int
    api_token: str
    webhook_secret: str

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PYTHONPATH": str(ROOT),
            "WARDROUND_DATA_DIR": str(self.folder),
            "WARDROUND_DATABASE_URL": "",
            "WARDROUND_BROKER_URL": "",
            "WARDROUND_LABEL_STUDIO_URL": "http://127.0.0.1:9",  # nobody: stored answers must not need it
            "WARDROUND_LABEL_STUDIO_TOKEN": "unused",
            "WARDROUND_API_TOKEN": self.api_token,
            "WARDROUND_WEBHOOK_SECRET": self.webhook_secret,
            "WARDROUND_API_PORT": str(self.port),
            "WARDROUND_TRAIN_MAX_STEPS": "1000000",
            "WARDROUND_TRAIN_TIME_LIMIT_SECONDS": "3600",
            "WARDROUND_DEVICE": "cpu",
            "WARDROUND_LOG_LEVEL": "WARNING",
        }

    def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json", **headers})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def basic(self) -> dict[str, str]:
        shown = base64.b64encode(f"wardround:{self.api_token}".encode()).decode()
        return {"Authorization": f"Basic {shown}"}


# --------------------------------------------------------------------------------------------- what is asked of it


def requests(bench: Bench, rng: np.random.Generator) -> dict[str, Callable[[int], float]]:
    """Each kind of request: a function of its number that sends it and returns how long it took, in ms."""
    codes = [encode(mask_of_size(rng, STORED_BYTES)) for _ in range(8)]
    setup = json.dumps({"project": f"{ANNOTATED}.1795394750", "schema": LABEL_CONFIG, "access_token": "x"}).encode()
    proof = {SECRET_HEADER: bench.webhook_secret}
    return {
        "predict, stored": lambda n: _timed(bench, "POST", "/predict", _predict(n), bench.basic(), 200),
        "health": lambda _: _timed(bench, "GET", "/health", None, {}, 200),
        "setup": lambda _: _timed(bench, "POST", "/setup", setup, bench.basic(), 200),
        "webhook": lambda n: _timed(bench, "POST", "/webhook", _webhook(n, codes[n % 8]), proof, 201),
    }


def _timed(bench: Bench, method: str, path: str, body: bytes | None, headers: dict[str, str], expected: int) -> float:
    start = time.perf_counter()
    status, answer = bench.send(method, path, body, headers)
    took_ms = (time.perf_counter() - start) * 1000
    if status != expected:
        raise SystemExit(f"{method} {path} was answered {status}: {answer[:300]!r}")
    return took_ms


def _task_body(number: int) -> dict[str, Any]:
    return {
        "id": task_id(ANNOTATED, number % N_TASKS), "data": {"image": f"/data/upload/{number % N_TASKS}.png"},
        "meta": {}, "created_at": "2026-11-23T00:45:50.376648Z", "updated_at": "2026-11-23T00:45:50.376675Z",
        "is_labeled": False, "overlap": 1, "inner_id": number, "total_annotations": 0, "project": ANNOTATED,
        "annotations": [], "predictions": [],
    }  # fmt: skip


def _predict(number: int) -> bytes:
    body = {
        "tasks": [_task_body(number)], "project": f"{ANNOTATED}.1795394750", "label_config": LABEL_CONFIG,
        "params": {"login": None, "password": None, "context": None},
    }  # fmt: skip
    return json.dumps(body).encode()


def _webhook(number: int, rle: list[int]) -> bytes:
    """Annotators submit new annotations and change them: each id is sent twice, each time with another mask."""
    moment = (datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=number)).isoformat()
    region = {
        "id": f"r{number}", "from_name": "brush", "to_name": "image", "type": "brushlabels",
        "original_width": SIDE_PX, "original_height": SIDE_PX, "image_rotation": 0,
        "value": {"format": "rle", "rle": rle, "brushlabels": ["Lesion"]},
    }  # fmt: skip
    annotation = {
        "id": 1 + number // 2, "task": task_id(ANNOTATED, number // 2 % N_TASKS), "completed_by": 1, "lead_time": 12.5,
        "created_at": moment, "updated_at": moment, "was_cancelled": False, "parent_prediction": None,
        "result": [region],
    }  # fmt: skip
    body = {
        "action": "ANNOTATION_UPDATED" if number % 2 else "ANNOTATION_CREATED", "annotation": annotation,
        "task": _task_body(number // 2), "project": {"id": ANNOTATED, "label_config": LABEL_CONFIG},
    }  # fmt: skip
    return json.dumps(body).encode()


def measure(kinds: dict[str, Callable[[int], float]], first: int, n: int) -> dict[str, np.ndarray]:
    """Times in ms of `n` requests of each kind, taking turns."""
    for warm_up in range(5):
        for ask in kinds.values():
            ask(first + warm_up)
    times: dict[str, list[float]] = {name: [] for name in kinds}
    deadline = time.monotonic() + TIME_LIMIT_SECONDS
    for number in range(first + 5, first + 5 + n):
        for name, ask in kinds.items():
            times[name].append(ask(number))
        if time.monotonic() > deadline:
            print(f"stopped after {len(times[name])} of {n} requests of each kind: the time is up")
            break
    return {name: np.array(found) for name, found in times.items()}


# ------------------------------------------------------------------------------------------------------ processes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_api(bench: Bench) -> subprocess.Popen[bytes]:
    api = subprocess.Popen([sys.executable, "-m", "backend.cli", "api"], cwd=bench.folder, env=bench.environment())
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and api.poll() is None:
        try:
            bench.send("GET", "/health", None, {})
        except OSError:
            time.sleep(0.05)
        else:
            return api
    stop(api)
    raise SystemExit("the API did not start")


def start_round(bench: Bench, round_id: int) -> subprocess.Popen[bytes]:
    """The process of a round, as the worker starts it; returns once it has trained some steps."""
    command = [sys.executable, "-m", "backend.cli", "run-round", str(round_id), "--parent", str(os.getpid())]
    process = subprocess.Popen(command, cwd=bench.folder, env=bench.environment())
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if steps_done(bench, round_id) >= 3:
            return process
        time.sleep(0.2)
    stop(process)
    raise SystemExit("the round did not begin to train")


def steps_done(bench: Bench, round_id: int) -> int:
    _, answer = bench.send("GET", f"/api/rounds/{round_id}", None, {"Authorization": f"Bearer {bench.api_token}"})
    row = json.loads(answer)
    if row["status"] not in (RoundStatus.opened, RoundStatus.selected):
        raise SystemExit(f"the round is {row['status']}: {row['error']}")
    progress = row["progress"] or {}
    return int(progress.get("done", 0)) if progress.get("step") == "train" else 0


def stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


# ----------------------------------------------------------------------------------------------------- the answer


def report(idle: dict[str, np.ndarray], loaded: dict[str, np.ndarray]) -> bool:
    """Print both columns side by side; returns whether every target is met."""
    print(f"\n{'ms':<16} {'':>6} {'min':>7} {'p50':>7} {'p99':>7} {'max':>7}   target under load")
    verdicts = []
    for name, target in TARGETS.items():
        got_ms = float(np.quantile(loaded[name], target.quantile))
        verdicts.append(got_ms <= target.limit_ms)
        promise = f"p{target.quantile * 100:.0f} <= {target.limit_ms:.0f}: {'met' if verdicts[-1] else 'MISSED'}"
        print(_row(name, "idle", idle[name]))
        print(_row("", "round", loaded[name]), f"  {promise}")
        ratios = [np.quantile(loaded[name], q) / np.quantile(idle[name], q) for q in (0, 0.5, 0.99)]
        print(f"{'':<16} {'ratio':>6} " + " ".join(f"{ratio:6.1f}x" for ratio in ratios))
    return all(verdicts)


def _row(name: str, column: str, times_ms: np.ndarray) -> str:
    figures = [*np.quantile(times_ms, (0, 0.5, 0.99)), times_ms.max()]
    return f"{name:<16} {column:>6} " + " ".join(f"{figure:7.1f}" for figure in figures)


def load() -> str:
    return ", ".join(f"{one:.1f}" for one in os.getloadavg()) + f" on {os.cpu_count()} cores"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500, help="requests of each kind per column (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the images and masks (default: %(default)s)")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory(prefix="wardround-bench-") as folder:
        bench = Bench(Path(folder), free_port(), secrets.token_hex(20), secrets.token_hex(20))
        round_id = fill(bench.folder, rng)
        kinds = requests(bench, rng)
        api = start_api(bench)
        try:
            print(f"load average before: {load()}")
            idle = measure(kinds, 0, options.n)
            training = start_round(bench, round_id)
            before, start = steps_done(bench, round_id), time.monotonic()
            try:
                loaded = measure(kinds, 10_000, options.n)
                rate = (steps_done(bench, round_id) - before) / (time.monotonic() - start)
            finally:
                status = stop(training)
        finally:
            stop(api)
    print(f"load average after: {load()}; the round trained {rate:.1f} steps a second meanwhile")
    if status != EX_TEMPFAIL:
        print(f"the round was told to stop and ended with {status} instead of handing itself back ({EX_TEMPFAIL})")
    met = report(idle, loaded)
    return 0 if met and status == EX_TEMPFAIL else 1


if __name__ == "__main__":
    sys.exit(main())
