"""Wardround as its users run it: its commands and its settings, nothing of its inside."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from demo.errors import DemoError
from demo.processes import LOOPBACK, Child, Children, require_free
from demo.project import LABEL

Row = TypeVar("Row")
_ROOT = Path(__file__).resolve().parent.parent
_READY_SECONDS = 120.0
_COMMAND_SECONDS = 300.0


@dataclass(frozen=True)
class Round:
    """One row of `wardround rounds list`.

    `dice` is the candidate's mean on the held-out set, `incumbent_dice` that of the version serving before; None
    before there is one. `n_labels` trained, `n_held_out` evaluated.
    """

    id: int
    number: int
    status: str
    verdict: str | None
    n_labels: int
    n_held_out: int
    dice: float | None
    incumbent_dice: float | None
    progress: Any
    error: str | None

    @property
    def finished(self) -> bool:
        return self.status in {"done", "failed"}


@dataclass(frozen=True)
class Queued:
    """One row of `wardround queue --json`: a task, its place (0 is served first) and why it stands there."""

    task_id: int
    rank: int
    score: float | None
    arm: str


@dataclass(frozen=True)
class Wardround:
    """The product on its embedded defaults (SQLite, the file broker), its data and logs under `folder`."""

    folder: Path
    label_studio_url: str
    label_studio_token: str
    api_port: int
    annotations_per_round: int
    api_token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    webhook_secret: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.api_port}"

    def start(self, children: Children) -> None:
        """Migrate the database, then start the API, the worker and beat; returns when the API answers."""
        require_free(self.api_port)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run("migrate")
        api = children.start(self._child("api"))
        api.wait_until(self._healthy, timeout_seconds=_READY_SECONDS)
        children.start(self._child("worker"))
        children.start(self._child("beat"))

    def connect(self, project: int, prompt: str) -> None:
        self.run("connect", str(project), "--prompt", f"{LABEL}={prompt}")

    def rounds(self, project: int) -> list[Round]:
        """The rounds of a project, oldest first. From the API: commands take a second to start."""
        answer = httpx.get(
            f"{self.url}/api/projects/{project}/rounds",
            headers={"Authorization": f"Bearer {self.api_token}"},
            timeout=30.0,
        )
        if not answer.is_success:
            raise DemoError(f"Wardround answered {answer.status_code} when asked for its rounds: {answer.text[:300]}")
        return sorted((_of(Round, row) for row in answer.json()), key=lambda row: row.number)

    def queue(self, project: int) -> list[Queued]:
        """The queue as Wardround wants it served, first task first."""
        rows = [_of(Queued, row) for row in self._json("queue", str(project), "--json")]
        return sorted(rows, key=lambda row: row.rank)

    def run(self, *arguments: str) -> str:
        """The standard output of one `wardround` command. Raises DemoError with what it complained about."""
        done = subprocess.run(
            [*self._command(), *arguments],
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
        )
        if done.returncode != 0:
            raise DemoError(
                f"`wardround {' '.join(arguments)}` failed:\n{(done.stderr or done.stdout).strip()[-2000:]}"
            )
        return done.stdout

    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("WARDROUND_")}
        return kept | {
            "WARDROUND_DATA_DIR": str(self.folder / "data"),
            "WARDROUND_LABEL_STUDIO_URL": self.label_studio_url,
            "WARDROUND_LABEL_STUDIO_TOKEN": self.label_studio_token,
            "WARDROUND_PUBLIC_URL": self.url,
            "WARDROUND_API_HOST": LOOPBACK,
            "WARDROUND_API_PORT": str(self.api_port),
            "WARDROUND_API_TOKEN": self.api_token,
            "WARDROUND_WEBHOOK_SECRET": self.webhook_secret,
            "WARDROUND_ANNOTATIONS_PER_ROUND": str(self.annotations_per_round),
            "WARDROUND_RECONCILE_SECONDS": "5",
            "WARDROUND_TICK_SECONDS": "2",
            "WARDROUND_DEBOUNCE_SECONDS": "1",
            # A demo has few images: a team would not decide on so little.
            "WARDROUND_MIN_HELD_OUT": "3",
            "WARDROUND_TRAIN_TIME_LIMIT_SECONDS": "60",
            "PYTHONUNBUFFERED": "1",
        }

    def _json(self, *arguments: str) -> list[dict[str, Any]]:
        text = self.run(*arguments)
        try:
            rows: list[dict[str, Any]] = json.loads(text)
        except ValueError as error:
            raise DemoError(f"`wardround {' '.join(arguments)}` printed no JSON: {text[:300]!r}") from error
        return rows

    def _child(self, command: str) -> Child:
        log = self.folder / "logs" / f"{command}.log"
        return Child(
            f"wardround {command}", [*self._command(), command], log=log, env=self.environment(), cwd=self.folder
        )

    def _command(self) -> list[str]:
        installed = Path(sys.executable).with_name("wardround")
        if not installed.exists():
            raise DemoError(f"{installed} is not there; run `make setup` in {_ROOT}")
        return [str(installed)]

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=2.0).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


def _of(kind: type[Row], row: dict[str, Any]) -> Row:
    """The fields a record names; a newer product may print more."""
    return kind(**{name: row.get(name) for name in kind.__dataclass_fields__})  # type: ignore[attr-defined]
