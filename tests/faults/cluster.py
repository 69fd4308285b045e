"""Wardround as several processes on one stack: started, killed and frozen at will, and always watched.

Two workers, two beats and one API, each a command of this checkout, against the Label Studio of `label_studio_server`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
from sqlalchemy.exc import SQLAlchemyError

from backend import context
from backend.rounds import control
from backend.settings import Settings
from backend.store import Store, projects, rounds
from backend.tables import FINISHED, Lane, Project, Round
from backend.wiring import SECRET_HEADER
from demo.processes import Child, free_port, tail
from tests.faults.label_studio_server import TOKEN, Server
from tests.faults.stacks import Stack

ROOT = Path(__file__).resolve().parents[2]
PROJECT_ID = 1
DEADLINE_SECONDS = 180.0  # nothing here is about speed: a machine may be busy with other things
LEASE_SECONDS = 4.0
WORKERS = ("worker-1", "worker-2")
COMMANDS = {"api": "api", "worker-1": "worker", "worker-2": "worker", "beat-1": "beat", "beat-2": "beat"}
QUICK = {
    "ANNOTATIONS_PER_ROUND": "4",
    "DEBOUNCE_SECONDS": "0",
    "DEVICE": "cpu",
    "HELD_OUT_SHARE": "0.3",
    "LEASE_SECONDS": f"{LEASE_SECONDS}",
    "MAX_DRAWS": "2",
    "MIN_FREE_DISK_BYTES": "2000000",
    "MIN_HELD_OUT": "1",
    "N_DRAWS": "2",
    "RECONCILE_SECONDS": "2",
    "SHARD_SIZE": "8",
    "THREADS": "1",
    "TICK_SECONDS": "1",
    # Steps end a training, not time; more of them than a kill needs to find it under way would only cost time.
    "TRAIN_MAX_STEPS": "25",
}


class TooSlowError(Exception):
    """What was waited for did not come; the message ends with the logs."""


@dataclass
class Watch:
    """What a sampling of the rounds' rows has seen."""

    reclaims: int = 0  # a claim was taken from a process that died or slept
    most_unfinished: int = 0
    _last: dict[int, tuple[str, str]] = field(default_factory=dict)  # round -> status, claim
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def look(self, rows: list[Round]) -> None:
        with self._one_at_a_time:
            self._look(rows)

    def _look(self, rows: list[Round]) -> None:
        self.most_unfinished = max(self.most_unfinished, sum(row.status not in FINISHED for row in rows))
        for row in rows:
            if row.claim is None:
                continue
            status, claim = self._last.get(row.id, (row.status, row.claim))
            # Handed from lane to lane, a round begins to count its attempts anew; taken from the dead, it does not.
            self.reclaims += status == row.status and claim != row.claim and row.attempts > 1
            self._last[row.id] = (row.status, row.claim)


class Cluster:
    """The processes, their Label Studio and their database. Use as a context manager."""

    def __init__(self, folder: Path, data_dir: Path, stack: Stack, *, n_tasks: int = 24, **changed: str) -> None:
        self.stack = stack
        self.folder = folder
        self.server = Server(n_tasks)
        self.environment = _environment(data_dir, stack, self.server.url) | _named(changed)
        self.settings = _settings(self.environment)
        self.store = Store(stack.database.url)
        self.watch = Watch()
        self.children: dict[str, Child] = {}
        self._context: context.Context | None = None
        self._leaving = threading.Event()
        self._watcher = threading.Thread(target=self._keep_watch, daemon=True)

    def __enter__(self) -> Self:
        self.server.__enter__()
        self.store.migrate()
        self.connect()
        self._watcher.start()
        for name in COMMANDS:
            self.start(name)
        self.wait_for("the API", self._healthy)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._watcher.join()
        for name in list(self.children):
            self.kill(name)  # nothing that is asked after this depends on a gentle end
        if self._context is not None:
            self._context.close()
        self.store.close()
        self.server.__exit__(kind, error, trace)

    def connect(self) -> None:
        """What `wardround connect` leaves in the database; the first pull brings the tasks."""
        state = self.server.state
        with self.store.begin() as s:
            projects.save(
                s,
                Project(
                    id=PROJECT_ID,
                    title="faults",
                    label_config=state.label_config,
                    prompts={"Lesion": "a bright disc"},
                    group_field="group",
                    prompt_field="prompt",
                    connected_at=datetime.now(UTC),
                ),
            )

    # ------------------------------------------------------------------------------------------------- processes

    def start(self, name: str, **changed: str) -> None:
        """Start a process, with settings of its own if need be; only from the thread that lives longest."""
        command = [sys.executable, "-m", "backend.cli", COMMANDS[name]]
        env = self.environment | _named(changed)
        child = Child(name, command, log=self.folder / "logs" / f"{name}.log", env=env, cwd=ROOT)
        child.start()
        self.children[name] = child

    def kill(self, name: str) -> None:
        """`kill -9` a process and everything it started."""
        child = self.children.pop(name, None)
        if child is None or child.pid is None:
            return
        family = [child.pid, *descendants(child.pid)]
        signal_all(family, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.stop()

    def restart(self, name: str, **changed: str) -> None:
        self.kill(name)
        self.start(name, **changed)

    def restart_dead(self) -> None:
        """What a service manager does."""
        for name in COMMANDS:
            if name not in self.children:
                self.start(name)

    def runner(self) -> str:
        """The worker whose process holds the newest round's claim; without a claim, one that has children."""
        claim = (self.latest().claim if self.latest_number() >= 0 else None) or ""
        families = {name: self.family(name) for name in WORKERS if name in self.children}
        for name, family in families.items():
            if any(f":{pid}:" in f":{claim}:" for pid in family):
                return name
        return max(families, key=lambda name: len(families[name]))

    def family(self, name: str) -> list[int]:
        """The process and all that it started, itself first."""
        pid = self.children[name].pid
        return [] if pid is None else [pid, *descendants(pid)]

    # -------------------------------------------------------------------------------------------------- looking

    def rounds(self) -> list[Round]:
        with self.store.read() as s:
            rows = list(rounds.of_project(s, PROJECT_ID))
        self.watch.look(rows)
        return rows

    def latest(self) -> Round:
        return self.rounds()[-1]

    def latest_number(self) -> int:
        rows = self.rounds()
        return rows[-1].number if rows else -1

    def wait_for(
        self, what: str, look: Callable[[], Any], seconds: float = DEADLINE_SECONDS, every: float = 0.05
    ) -> Any:
        """Poll until `look` finds something; TooSlowError says what did not come."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(SQLAlchemyError):  # some faults take our own connection away
                if found := look():
                    return found
            if time.monotonic() > deadline:
                raise TooSlowError(f"waited {seconds:.0f} s in vain for {what}\n{self.state()}")
            time.sleep(every)

    def quiet(self, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until every annotation has arrived, no round is due and none is unfinished."""
        self.wait_for("all annotations to arrive", self._all_arrived, seconds)
        calm_since: list[float] = []

        def calm() -> bool:
            if any(row.status not in FINISHED for row in self.rounds()):
                calm_since.clear()
                return False
            calm_since.append(time.monotonic())
            # Two ticks and a little: what is due is open by then.
            return calm_since[-1] - calm_since[0] > 2.5 * self.settings.tick_seconds

        self.wait_for("the last round to end", calm, seconds)

    def _all_arrived(self) -> bool:
        from tests.faults.verdict import alive

        there = {one.id: one.updated_at for one in self.server.annotations().values()}
        return {row.id: row.updated_at for row in alive(self.store)} == there

    def state(self) -> str:
        """Rounds and the ends of the logs, for a failure's message."""
        with suppress(SQLAlchemyError):
            rows = [
                f"round {row.number}: {row.status}, {row.trigger}, attempts {row.attempts}, claim {row.claim}, "
                f"progress {row.progress}, error {row.error}"
                for row in self.rounds()
            ][-4:]
            ends = [f"---- {log.name}\n{tail(log, 15)}" for log in sorted((self.folder / "logs").glob("*.log"))]
            return "\n".join([*rows, *ends])
        return "the database does not answer"

    def _keep_watch(self) -> None:
        while not self._leaving.wait(0.03):
            with suppress(SQLAlchemyError):
                self.rounds()

    # ---------------------------------------------------------------------------------------------------- acting

    def annotate(self, n: int, rng: np.random.Generator, *, tell: bool = True) -> list[dict[str, Any]]:
        """People answer `n` tasks; with `tell` Label Studio's webhooks say so. Returns the events."""
        events = self.server.annotate(n, rng)
        if tell:
            for event in events:
                self.tell(event)
        return events

    def tell(self, event: dict[str, Any]) -> int:
        """One webhook, as Label Studio sends it: never again when nobody answers. Returns the status, or 0."""
        headers = {SECRET_HEADER: self.settings.webhook_secret.get_secret_value()}
        url = f"http://127.0.0.1:{self.settings.api_port}/webhook"
        try:
            return httpx.post(url, json=event, headers=headers, timeout=10.0).status_code
        except httpx.HTTPError:
            return 0

    def nudge(self, message: tuple[Any, ...], lane: Lane) -> None:
        """One more message for the workers, sent as the product sends them, into the queue of any lane."""
        self._product().enqueue(*message, lane=lane)

    def cancel(self, round_id: int) -> None:
        """`wardround rounds cancel`, at once."""
        control.cancel(self._product(), round_id)

    def roll_back(self, version: int) -> None:
        """`wardround rollback`, at once."""
        control.roll_back(self._product(), PROJECT_ID, version)

    def _product(self) -> context.Context:
        if self._context is None:
            self._context = context.build(self.settings, migrate=False)
        return self._context

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.settings.api_port}/health", timeout=5.0).is_success
        except httpx.HTTPError:
            return False


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and theirs. Linux's own list of them."""
    found: list[int] = []
    for tasks in Path("/proc", str(pid), "task").glob("*/children"):
        with suppress(OSError):
            for child in tasks.read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _environment(data_dir: Path, stack: Stack, label_studio_url: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WARDROUND_")}
    settings = QUICK | {
        "API_PORT": str(free_port()),
        "API_TOKEN": "the-api-token",
        "BROKER_URL": stack.broker.url,
        "DATABASE_URL": stack.database.url,
        "DATA_DIR": str(data_dir),
        "LABEL_STUDIO_TOKEN": TOKEN,
        "LABEL_STUDIO_URL": label_studio_url,
        "WEBHOOK_SECRET": "the-webhook-secret",
    }
    return inherited | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | _named(settings)


def _named(settings: dict[str, str]) -> dict[str, str]:
    return {f"WARDROUND_{name.upper()}": value for name, value in settings.items()}


def _settings(environment: dict[str, str]) -> Settings:
    """The same settings in this process."""
    ours = {
        name.removeprefix("WARDROUND_").lower(): value for name, value in environment.items() if "WARDROUND_" in name
    }
    return Settings.model_validate({name: value for name, value in ours.items() if name in Settings.model_fields})
