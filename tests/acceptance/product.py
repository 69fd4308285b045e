"""The whole product as its users run it, quick enough for a test: commands in processes of their own, nothing faked."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest

from backend.files import Files
from backend.label_studio.masks import masks_of
from backend.label_studio.payloads import parse_label_config
from backend.store import Store
from backend.store import annotations as annotation_rows
from backend.store import rounds as round_rows
from backend.tables import Annotation
from demo import data, project
from demo.annotator import Annotator
from demo.errors import DemoError
from demo.label_studio import LabelStudioServer
from demo.processes import Child, free_port, tail
from demo.product import Round, Wardround
from model import read_mask

Found = TypeVar("Found")
ROOT = Path(__file__).resolve().parents[2]
N_IMAGES = 24
ANNOTATIONS_PER_ROUND = 8
# Nothing here is about speed: a machine may be busy with other things.
DEADLINE_SECONDS = 240.0
_POLL_SECONDS = 0.2
# The demo's, with smart tools. They are blue: what is orange on the screen is a mask.
_TOOLS = f"""
  <RectangleLabels name="box" toName="image" smart="true">
    <Label value="{project.LABEL}" background="#1864ab"/>
  </RectangleLabels>
  <KeyPointLabels name="point" toName="image" smart="true">
    <Label value="{project.LABEL}" background="#1864ab"/>
  </KeyPointLabels>
</View>"""
LABEL_CONFIG = project.LABEL_CONFIG.replace("</View>", _TOOLS)


@dataclass(frozen=True)
class Product(Wardround):
    """Wardround on its embedded defaults, with rounds that take seconds."""

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            # The commands of this checkout, wherever the environment was installed from.
            "PYTHONPATH": str(ROOT),
            "WARDROUND_RECONCILE_SECONDS": "3",
            "WARDROUND_TICK_SECONDS": "1",
            "WARDROUND_DEBOUNCE_SECONDS": "0",
            "WARDROUND_MIN_HELD_OUT": "1",
            "WARDROUND_LEASE_SECONDS": "8",
            "WARDROUND_TRAIN_MAX_STEPS": "50",
            # Steps end the training, not time: the weights are the same on a busy machine.
            "WARDROUND_TRAIN_TIME_LIMIT_SECONDS": "200",
            "WARDROUND_N_DRAWS": "4",
            "WARDROUND_THREADS": "1",
        }

    def child(self, command: str) -> Child:
        return self._child(command)

    @property
    def command(self) -> str:
        """The installed `wardround`."""
        return self._command()[0]

    @property
    def healthy(self) -> bool:
        return self._healthy()


class Running:
    """Wardround and a real Label Studio on one project of phantoms; close() ends the processes."""

    def __init__(self, server: LabelStudioServer, folder: Path) -> None:
        self.server = server
        self.http = server.client()
        self.dataset = data.load(None, N_IMAGES, folder / "phantoms")
        self.project = project.create(self.http, "Acceptance", self.dataset.pairs)
        self.http.patch(f"/api/projects/{self.project.id}/", json={"label_config": LABEL_CONFIG}).raise_for_status()
        self.annotator = Annotator(self.http, self.project)
        self.product = Product(folder / "wardround", server.url, server.pat(), free_port(), ANNOTATIONS_PER_ROUND)
        self.product.folder.mkdir()
        self.product.run("migrate")
        data_dir = self.product.folder / "data"
        self.store = Store(f"sqlite:///{data_dir / 'wardround.db'}")
        self._files = Files(data_dir / "files", max_image_pixels=10**7)
        self._children: dict[str, Child] = {}

    def close(self) -> None:
        for child in reversed(self._children.values()):
            child.stop()
        self.store.close()
        self.http.close()

    # ------------------------------------------------------------------------------------------------- processes

    def start(self, command: str) -> None:
        """Start `wardround api`, `worker` or `beat`; the API is waited for."""
        child = self._children[command] = self.product.child(command)
        child.start()
        if command == "api":
            child.wait_until(lambda: self.product.healthy, timeout_seconds=DEADLINE_SECONDS)

    def kill(self, command: str) -> None:
        """`kill -9` a process and everything it started."""
        child = self._children.pop(command)
        assert child.pid is not None
        os.killpg(child.pid, signal.SIGKILL)
        child.stop()

    def wait_for(self, what: str, look: Callable[[], Found | None], timeout_seconds: float = DEADLINE_SECONDS) -> Found:
        """Poll until `look` finds something. Fails with what was waited for and the ends of the logs."""
        found = self.seen(look, timeout_seconds, what)
        if not found:
            pytest.fail(f"waited {timeout_seconds:.0f} s in vain for {what}\n{self._state()}")
        return found

    def seen(self, look: Callable[[], Found | None], timeout_seconds: float, what: str = "") -> Found | None:
        """What `look` finds within the time, or None; fails when a process ends meanwhile."""
        started = time.monotonic()
        while not (found := look()) and time.monotonic() - started < timeout_seconds:
            self._require_running(what)
            time.sleep(_POLL_SECONDS)
        return found or None

    def _require_running(self, what: str) -> None:
        try:
            for child in self._children.values():
                child.require_running()
        except DemoError as error:
            pytest.fail(f"while waiting for {what}: {error}")

    def _state(self) -> str:
        logs = sorted((self.product.folder / "logs").glob("*.log"))
        ends = [f"---- the end of {log.name}\n{tail(log)}" for log in logs]
        return "\n".join([f"rounds: {self._rounds_if_told()}", *ends])

    def _rounds_if_told(self) -> object:
        try:
            return self.product.rounds(self.project.id)
        except (DemoError, httpx.HTTPError) as error:
            return error

    # -------------------------------------------------------------------------------------------- what Wardround says

    def queue(self) -> list[dict[str, Any]]:
        """`wardround queue PROJECT --json`: what is to be served, first task first."""
        rows: list[dict[str, Any]] = json.loads(self.product.run("queue", str(self.project.id), "--json"))
        return rows

    def head(self) -> int:
        """The task that Wardround wants served next."""
        return int(self.api(f"/api/projects/{self.project.id}/queue")[0]["task_id"])

    def api(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.product.api_token}"}
        return httpx.get(f"{self.product.url}{path}", headers=headers, timeout=60.0).raise_for_status().json()

    def finished_round(self, number: int) -> Round:
        """Wait for the end of a round; a failed one fails the test at once."""

        def look() -> Round | None:
            rows = [row for row in self.product.rounds(self.project.id) if row.number == number]
            failed = [row.error for row in rows if row.status == "failed"]
            if failed:
                pytest.fail(f"round {number} failed: {failed[0]}\n{self._state()}")
            return next((row for row in rows if row.finished), None)

        return self.wait_for(f"round {number} to end", look)

    def last_round(self) -> Round:
        return self.product.rounds(self.project.id)[-1]

    # ------------------------------------------------------------------------------------------- what its database has

    def annotation(self, annotation_id: int) -> Annotation | None:
        with self.store.read() as s:
            return s.get(Annotation, annotation_id)

    def of_task(self, task_id: int) -> Annotation | None:
        """The annotation of a task that was answered once."""
        with self.store.read() as s:
            ids = annotation_rows.alive_ids(s, [task_id])
            assert len(ids) <= 1, f"task {task_id} has annotations {ids}"
            return s.get(Annotation, ids.pop()) if ids else None

    def annotation_ids(self) -> set[int]:
        with self.store.read() as s:
            return annotation_rows.alive_ids(s, list(self.project.pairs))

    def stored_mask(self, task_id: int) -> np.ndarray:
        """(H, W) bool: the mask that a round would train on."""
        with self.store.read() as s:
            found = {task.id: masks for _, task, masks in annotation_rows.usable(s, self.project.id)}
        return read_mask(self._files.path("masks", found[task_id][project.LABEL]))

    def trigger(self, round_id: int) -> str:
        with self.store.read() as s:
            return round_rows.get(s, round_id).trigger.value

    # ------------------------------------------------------------------------------------------- what Label Studio has

    def label_studio(self, path: str, **query: Any) -> Any:
        return self.http.get(path, params=query).raise_for_status().json()

    def user_id(self) -> int:
        return int(self.label_studio("/api/current-user/whoami")["id"])


def pre_annotation(task: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the mask that Label Studio shows with a served task; all False without one."""
    return mask_of([region for prediction in task["predictions"] for region in prediction["result"]], shape)


def mask_of(regions: list[dict[str, Any]], shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the mask that regions show together."""
    return masks_of(regions, parse_label_config(LABEL_CONFIG), shape).get(project.LABEL, np.zeros(shape, dtype=bool))
