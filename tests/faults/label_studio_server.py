"""A Label Studio that answers in microseconds, over HTTP: the state of `FakeLabelStudio` behind a lock.

Real enough for everything that `LabelStudioClient` asks during rounds and pulls. It can be down, it can act and then
never answer, and it can call a function in the middle of a request: the one way to kill a process at an exact place.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import numpy as np

from backend.label_studio.client import TaskWithAnnotations
from backend.label_studio.payloads import Annotation
from tests.backend.fakes import FakeLabelStudio, true_mask

TOKEN = "a-legacy-token"


class State(FakeLabelStudio):
    """The project, on the clock of the wall: our pulls and Label Studio's changes share one time."""

    def tick(self) -> datetime:
        self.clock = max(self.clock + timedelta(microseconds=1), datetime.now(UTC))
        return self.clock


class Server:
    """The HTTP server, in threads of this process. Hold `lock` while looking at `state` or changing it."""

    def __init__(self, n_tasks: int, project_id: int = 1) -> None:
        self.state = State(project_id=project_id)
        self.lock = threading.RLock()
        self.down = False
        self.mute = False  # requests take effect, answers are lost
        self.requests: Counter[str] = Counter()
        self._traps: list[tuple[str, str, Callable[[], None]]] = []
        for task_id in range(1, n_tasks + 1):
            self.state.add_task(task_id, group=f"patient {task_id}")
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def at(self, moment: str, request: str, act: Callable[[], None]) -> None:
        """Call `act` once, `before` or `after` the next request whose "METHOD path" holds `request` takes effect."""
        self._traps.append((moment, request, act))

    def forget_traps(self) -> list[str]:
        """Take away the traps that nobody walked into; returns which."""
        left, self._traps = [request for _, request, _ in self._traps], []
        return left

    def spring(self, moment: str, request: str) -> None:
        with self.lock:
            sprung = [trap for trap in self._traps if trap[0] == moment and trap[1] in request]
            self._traps = [trap for trap in self._traps if trap not in sprung]
        for _, _, act in sprung:
            act()

    # --------------------------------------------------------------------------------------- what the verdict asks

    def annotations(self) -> dict[int, Annotation]:
        with self.lock:
            return dict(self.state.annotations)

    def served_order(self) -> list[int]:
        with self.lock:
            return [item["task"] for item in _served(self.state)]

    def doubled(self) -> int:
        """Predictions beyond the first of one task under the model version that is served now."""
        with self.lock:
            version = self.state.settings["model_version"]
            served = Counter(item["task"] for item in self.state.predictions if item["model_version"] == version)
        return sum(count - 1 for count in served.values())

    # ------------------------------------------------------------------------------------------- what people do

    def annotate(self, n: int, rng: np.random.Generator, *, left_unlabelled: int = 8) -> list[dict[str, Any]]:
        """Answer `n` tasks, or correct earlier answers once few tasks are left; returns the events of webhooks."""
        events = []
        with self.lock:
            known = {one.task_id: one.id for one in self.state.annotations.values()}
            open_tasks = [task for task in self.state.task_rows if task not in known]
            fresh = [int(task) for task in open_tasks[: max(0, len(open_tasks) - left_unlabelled)]][:n]
            again = rng.permutation(sorted(known))[: n - len(fresh)].tolist()
            for task_id in fresh + again:
                # Every answer differs from every other, so that a lost correction shows in the masks.
                mask = true_mask(task_id) & (rng.random(true_mask(task_id).shape) > 0.02)
                action = "ANNOTATION_UPDATED" if task_id in known else "ANNOTATION_CREATED"
                annotation_id = known.get(task_id) or max(self.state.annotations, default=0) + 1
                self.state.annotate(annotation_id, task_id, mask=mask)
                events.append(self.event(action, annotation_id))
        return events

    def delete_annotation(self, annotation_id: int) -> dict[str, Any]:
        with self.lock:
            self.state.delete_annotation(annotation_id)
            return {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": annotation_id}]} | self._project()

    def event(self, action: str, annotation_id: int) -> dict[str, Any]:
        one = self.state.annotations[annotation_id]
        task = self.state.task_rows[one.task_id]
        body = {"action": action, "annotation": _annotation(one), "task": {"id": task.id, "data": task.data}}
        return body | self._project()

    def _project(self) -> dict[str, Any]:
        return {"project": {"id": self.state.project_id, "label_config": self.state.label_config}}

    # ------------------------------------------------------------------------------------------------ the routes

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        """Status and body: bytes for an image, else what becomes JSON."""
        project = f"/api/projects/{self.state.project_id}"
        routes: dict[tuple[str, str], Callable[[], Any]] = {
            ("GET", project): self._shown,
            ("PATCH", project): lambda: self.state.update_project(self.state.project_id, **body),
            ("GET", "/api/tasks"): lambda: self._page(query),
            ("POST", f"{project}/import/predictions"): lambda: self._imported(body),
            ("GET", f"{project}/model-versions"): lambda: self.state.model_versions(self.state.project_id),
            ("DELETE", f"{project}/model-versions"): lambda: self._forgotten(body["model_version"]),
        }
        with self.lock:
            if method == "GET" and path in self.state.images:
                return 200, self.state.images[path]
            route = routes.get((method, path.rstrip("/")))
            if route is None:
                return 404, {"detail": f"the fault campaign's Label Studio has no {method} {path}"}
            return 201 if method == "POST" else 200, route()

    def _shown(self) -> dict[str, Any]:
        return self.state.project(self.state.project_id) | {"task_number": len(self.state.task_rows)}

    def _imported(self, items: list[dict[str, Any]]) -> dict[str, int]:
        return {"created": self.state.import_predictions(self.state.project_id, items)}

    def _forgotten(self, version: str) -> None:
        self.state.delete_model_version(self.state.project_id, version)

    def _page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        asked = json.loads(query["query"][0])
        filters = {item["filter"].removeprefix("filter:tasks:"): item["value"] for item in asked["filters"]["items"]}
        found = list(self.state.tasks(self.state.project_id))
        if "predictions_score" in filters:
            order = [item["task"] for item in _served(self.state)]
            found = sorted((one for one in found if one.task.id in order), key=lambda one: order.index(one.task.id))
        if "predictions_model_versions" in filters:
            having = self.state.tasks_with(self.state.project_id, filters["predictions_model_versions"][0])
            found = [one for one in found if one.task.id in having]
        if "updated_at" in filters:
            after = datetime.fromisoformat(filters["updated_at"])
            found = [one for one in found if one.updated_at > after]
        found = [one for one in found if one.task.id > filters.get("id", 0)]
        size, page = int(query["page_size"][0]), int(query["page"][0])
        shown = found[(page - 1) * size : page * size]
        ids_only = query.get("include") == ["id"]
        return {"total": len(found), "tasks": [{"id": one.task.id} if ids_only else _task(one) for one in shown]}


def _served(state: State) -> list[dict[str, Any]]:
    """Predictions of unlabelled tasks under the served version, lowest score first; a doubled one is there twice."""
    answered = {one.task_id for one in state.annotations.values()}
    version = state.settings["model_version"]
    current = [one for one in state.predictions if one["model_version"] == version and one["task"] not in answered]
    return sorted(current, key=lambda one: one["score"])


def _task(one: TaskWithAnnotations) -> dict[str, Any]:
    return {
        "id": one.task.id,
        "data": one.task.data,
        "annotations": [_annotation(annotation) for annotation in one.annotations],
        "updated_at": one.updated_at.isoformat(),
        "is_labeled": one.is_labeled,
    }


def _annotation(one: Annotation) -> dict[str, Any]:
    return {
        "id": one.id,
        "task": one.task_id,
        "project": one.project_id,
        "completed_by": one.completed_by,
        "lead_time": one.lead_time_seconds,
        "created_at": one.created_at.isoformat(),
        "updated_at": one.updated_at.isoformat(),
        "was_cancelled": one.skipped,
        "parent_prediction": one.parent_prediction,
        "result": one.regions,
    }


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            url = urlsplit(self.path)
            request = f"{self.command} {url.path}"
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.requests[request] += 1
            server.spring("before", request)
            if server.down:
                self.close_connection = True
                return
            if self.headers.get("Authorization") != f"Token {TOKEN}":
                self._send(401, {"detail": "Invalid token."})
                return
            body = json.loads(content) if content else None
            status, answer = server.answer(self.command, url.path, parse_qs(url.query), body)
            server.spring("after", request)
            if server.mute:
                self.close_connection = True
                return
            self._send(status, answer)

        def _send(self, status: int, answer: Any) -> None:
            is_image = isinstance(answer, bytes)
            content = answer if is_image else b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "image/png" if is_image else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_request  # noqa: N815 - the names http.server calls

        def log_message(self, *_: object) -> None:
            pass

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # who asked was killed

    return Handler
