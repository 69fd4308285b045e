"""A real Label Studio for the demo and the tests: its own environment, its own folder, generated secrets."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from demo.errors import DemoError, NotInstalled
from demo.processes import LOOPBACK, Child, free_port, require_free

# The first start migrates an empty database: about 50 s on two idle cores.
START_TIMEOUT_SECONDS = 600.0
USERNAME = "annotator@wardround.local"
# Cloud metadata addresses stay forbidden although the local network is allowed.
METADATA_SUBNETS = "169.254.0.0/16,fd00:ec2::/32"
_FOREIGN_PREFIXES = ("LABEL_STUDIO_", "HEARTEX_", "WARDROUND_", "POSTGRE_", "DJANGO_", "REDIS_")


def default_executable() -> Path:
    """Where `make` installs Label Studio: an environment beside ours, because their pinned versions clash."""
    return Path(__file__).resolve().parent.parent / ".venv-label-studio" / "bin" / "label-studio"


class LabelStudioServer:
    """Label Studio on the loopback interface, its data, log and secrets under `state_dir`.

    A second start in the same folder continues with the same data, user and tokens. `port=None` takes a free one.
    Raises NotInstalled, PortBusy, or ChildDied with the end of the log.
    """

    def __init__(
        self,
        state_dir: Path,
        port: int | None = None,
        executable: Path | None = None,
        *,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self.state_dir = state_dir.resolve()
        self.port = port if port is not None else free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.log = self.state_dir / "label-studio.log"
        self._executable = executable or default_executable()
        self._on_progress = on_progress or (lambda _message: None)
        self._secrets = _Secrets(self.state_dir / "secrets.json")
        self._child: Child | None = None
        self._had_data = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def username(self) -> str:
        return USERNAME

    @property
    def password(self) -> str:
        return self._secrets.get("password", lambda: secrets.token_hex(12))

    @property
    def token(self) -> str:
        """The legacy token (40 hex digits): `Authorization: Token …`."""
        return self._secrets.get("token", lambda: secrets.token_hex(20))

    def pat(self) -> str:
        """The personal access token (a JWT refresh token), kept with the secrets: Label Studio shows it only once."""
        return self._secrets.get("pat", self._create_pat)

    def client(self) -> httpx.Client:
        """An HTTP client logged in as the user; close it."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Token {self.token}"}, timeout=120.0)

    def start(self) -> None:
        """Start the server and return when it answers."""
        if not self._executable.exists():
            raise NotInstalled(f"Label Studio is not installed at {self._executable}; run `make setup`")
        require_free(self.port)
        self._had_data = (self.state_dir / "data").exists()
        self.state_dir.mkdir(parents=True, exist_ok=True)
        where = ("--internal-host", LOOPBACK, "--port", str(self.port), "--log-level", "INFO")
        self._child = Child(
            "Label Studio",
            (self._executable, "start", "--no-browser", *where),
            log=self.log,
            env=self._environment(),
            cwd=self.state_dir,
        )
        self._child.start()
        try:
            self._child.wait_until(self._healthy, timeout_seconds=START_TIMEOUT_SECONDS, on_wait=self._tell)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and everything it started. Safe to call twice."""
        if self._child is not None:
            self._child.stop()

    def require_running(self) -> None:
        """Raise ChildDied with the end of the log when the server has ended."""
        if self._child is None:
            raise DemoError("Label Studio was not started")
        self._child.require_running()

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=2.0).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _tell(self, seconds: float) -> None:
        first = " (the first start builds its database: about a minute)" if not self._had_data else ""
        self._on_progress(f"Label Studio is starting: {seconds:.0f} s{first}")

    def _create_pat(self) -> str:
        answer = httpx.post(f"{self.url}/api/token/", headers={"Authorization": f"Token {self.token}"}, timeout=30.0)
        if answer.status_code != httpx.codes.CREATED:
            raise DemoError(f"Label Studio gave no personal access token: {answer.status_code} {answer.text[:200]}")
        return str(answer.json()["token"])

    def _signing_key(self) -> dict[str, str]:
        """What Label Studio signs personal access tokens with.

        One time in fifty its own key begins with a `$`, which it cannot read again: a restart would end every token.
        """
        signed_without = self._had_data and not self._secrets.knows("signing_key")
        return {} if signed_without else {"SECRET_KEY": self._secrets.get("signing_key", lambda: secrets.token_hex(32))}

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN_PREFIXES)}
        return (
            kept
            | self._signing_key()
            | {
                "LABEL_STUDIO_BASE_DATA_DIR": str(self.state_dir / "data"),
                "LABEL_STUDIO_HOST": self.url,
                "LABEL_STUDIO_USERNAME": self.username,
                "LABEL_STUDIO_PASSWORD": self.password,
                "LABEL_STUDIO_USER_TOKEN": self.token,
                "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
                "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
                # Wardround answers on a loopback or private address, which Label Studio refuses by default.
                "LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS": "false",
                "LABEL_STUDIO_USER_ADDITIONAL_BANNED_SUBNETS": METADATA_SUBNETS,
                # An annotator who closes the browser would otherwise keep a task from the others for a day.
                "LABEL_STUDIO_TASK_LOCK_TTL": "3600",
                # The faster import of predictions stays off: it also skips their validation.
                "COLLECT_ANALYTICS": "0",
                "LATEST_VERSION_CHECK": "false",
                "SENTRY_DSN": "",
                "FRONTEND_SENTRY_DSN": "",
                "PYTHONUNBUFFERED": "1",
                "PATH": os.pathsep.join([str(self._executable.parent), os.environ.get("PATH", os.defpath)]),
            }
        )


class _Secrets:
    """Generated values in one file only its owner may read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, name: str, make: Callable[[], str]) -> str:
        known: dict[str, str] = json.loads(self._path.read_text()) if self._path.exists() else {}
        if name not in known:
            known[name] = make()
            self._write(known)
        return known[name]

    def knows(self, name: str) -> bool:
        return self._path.exists() and name in json.loads(self._path.read_text())

    def _write(self, known: dict[str, str]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f".{self._path.name}.part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(known, file)
        part.replace(self._path)
