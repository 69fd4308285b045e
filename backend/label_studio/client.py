"""Label Studio's REST API, as far as the service needs it (measured on 1.23.2).

Why not the SDK's client: pictures need the same token as the API, and the SDK's helper for them does not exchange a
personal access token; its answers are read whole, whatever their size; and importing it takes seconds. Here one
authentication serves both, every wait has an end, and every byte is counted.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from backend.label_studio import images
from backend.label_studio.connection import Connection
from backend.label_studio.errors import LabelStudioRefused, PredictionsDropped, QueueKeptChanging
from backend.label_studio.fields import a_list, a_time, an_object
from backend.label_studio.label_config import parse_label_config
from backend.label_studio.payloads import Annotation, Task, parse_annotation, parse_task

_PAGE_SIZE = 500
_ID_PAGE_SIZE = 5000
_BATCH_BYTES = 32_000_000
# Label Studio works through thousands of predictions inside one request: 3 to 13 ms each
_BULK_SECONDS = 900.0
_ATTEMPTS = 3


@dataclass(frozen=True)
class TaskWithAnnotations:
    """A task as Label Studio holds it now, with every annotation, skipped ones included."""

    task: Task
    annotations: list[Annotation]
    updated_at: datetime
    is_labeled: bool


class LabelStudioClient:
    """One Label Studio and one token. Use as a context manager; may be shared by threads.

    ``url`` is where the service reaches Label Studio; ``token`` a personal access token or a legacy token. Every
    method raises LabelStudioUnreachable, LabelStudioUnauthorised or LabelStudioRefused besides what it names.
    """

    def __init__(
        self, url: str, token: str, *, timeout_seconds: float = 30, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._connection = Connection(url, token, timeout_seconds, transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LabelStudioClient({str(self._connection.base)!r})"

    def close(self) -> None:
        self._connection.close()

    # ---------------------------------------------------------------------------------------- projects and tasks

    def project(self, project_id: int) -> dict[str, Any]:
        return self._call("GET", f"/api/projects/{project_id}/")

    def update_project(self, project_id: int, **fields: Any) -> dict[str, Any]:
        """Change some fields of a project; Label Studio tells our webhook as well."""
        return self._call("PATCH", f"/api/projects/{project_id}/", body=fields)

    def tasks(self, project_id: int, updated_after: datetime | None = None) -> Iterator[TaskWithAnnotations]:
        """Tasks with their annotations in the order of their ids, all or those changed after a time.

        An annotation created, changed, skipped or deleted changes its task. Raises UnsupportedLabelConfig.
        """
        image_key = parse_label_config(self.project(project_id)["label_config"]).image_key
        changed = [] if updated_after is None else [_changed_after(updated_after)]
        for task in self._pages(project_id, changed, _PAGE_SIZE, {"fields": "all"}):
            yield _task_with_annotations(task, project_id, image_key)

    def task_ids(self, project_id: int) -> set[int]:
        return {task["id"] for task in self._pages(project_id, [], _ID_PAGE_SIZE, {"include": "id"})}

    # ------------------------------------------------------------------------------------ predictions and the queue

    def import_predictions(self, project_id: int, items: Iterable[Mapping[str, Any]]) -> int:
        """Store predictions made by ``payloads.prediction``; returns how many.

        Label Studio drops what it does not like and answers 201 all the same: raises PredictionsDropped when it
        stored fewer than were sent. Sending the same twice stores it twice.
        """
        sent = created = 0
        for batch in _batches(items):
            content = b"[" + b",".join(batch) + b"]"
            path = f"/api/projects/{project_id}/import/predictions"
            answer = self._connection.call("POST", path, content=content, timeout_seconds=_BULK_SECONDS)
            created += an_object(answer, "answer").get("created", 0)
            sent += len(batch)
        if created != sent:
            raise PredictionsDropped(
                f"Label Studio stored {created} of {sent} predictions in project {project_id} and dropped the rest "
                "silently; compare labels and control names with the label config, and scores with [0, 1]"
            )
        return created

    def model_versions(self, project_id: int) -> dict[str, int]:
        """How many predictions of each model version Label Studio holds."""
        return self._call("GET", f"/api/projects/{project_id}/model-versions/")

    def delete_model_version(self, project_id: int, version: str) -> None:
        """Delete all predictions of a model version, at 10 ms each; without its current one a project has no queue."""
        path = f"/api/projects/{project_id}/model-versions/"
        body = orjson.dumps({"model_version": version})
        self._connection.call("DELETE", path, content=body, timeout_seconds=_BULK_SECONDS)

    def served_order(self, project_id: int) -> list[int]:
        """Ids of the unlabelled tasks in the order "Uncertainty sampling" serves them, best first.

        Only tasks with a scored prediction of the project's current model version: Label Studio serves the others
        at random, and only when none of these is left. So a wrong model version gives an empty list. Locks and what one
        person has skipped already differ from person to person and are not looked at: each is served the first task
        of this list that is free for them. Raises QueueKeptChanging where annotators were faster than three readings.
        """
        for _ in range(_ATTEMPTS):
            order = self._read_order(project_id)
            if order is not None:
                return order
        raise QueueKeptChanging(f"the queue of project {project_id} changed during {_ATTEMPTS} readings; try again")

    def _read_order(self, project_id: int) -> list[int] | None:
        """One reading of the whole queue, or None where it changed between two pages."""
        query = {
            "filters": _all_of([_UNLABELLED, _SCORED]),
            "ordering": ["tasks:predictions_score"],
        }
        order: list[int] = []
        total = None
        while total is None or len(order) < total:
            page = len(order) // _ID_PAGE_SIZE + 1
            answer = self._page(project_id, query, page, _ID_PAGE_SIZE, {"include": "id"})
            if total not in (None, answer["total"]) or (answer["total"] > len(order) and not answer["tasks"]):
                return None
            total = answer["total"]
            order += [task["id"] for task in answer["tasks"]]
        return order if len(set(order)) == len(order) else None

    # ------------------------------------------------------------------------------------------------ connections

    def webhooks(self, project_id: int) -> list[dict[str, Any]]:
        return self._call("GET", "/api/webhooks/", query={"project": project_id})

    def create_webhook(
        self, project_id: int, url: str, headers: Mapping[str, str], actions: Sequence[str]
    ) -> dict[str, Any]:
        """Have Label Studio tell ``url`` about ``actions``, with ``headers`` as proof that it is Label Studio."""
        body = {
            "project": project_id,
            "url": url,
            "headers": dict(headers),
            "actions": list(actions),
            "send_payload": True,
            "send_for_all_actions": False,
            "is_active": True,
        }
        return self._call("POST", "/api/webhooks/", body=body, secrets=tuple(headers.values()))

    def delete_webhook(self, webhook_id: int) -> None:
        self._delete(f"/api/webhooks/{webhook_id}/")

    def ml_backends(self, project_id: int) -> list[dict[str, Any]]:
        """The project's model servers; to answer, Label Studio asks each of them for its health."""
        return self._call("GET", "/api/ml", query={"project": project_id})

    def create_ml_backend(self, project_id: int, url: str, title: str, user: str, password: str) -> dict[str, Any]:
        """Connect a model server, which must be up: Label Studio calls its /health and /setup before it answers."""
        body = {
            "project": project_id,
            "url": url,
            "title": title,
            "is_interactive": False,
            "auth_method": "BASIC_AUTH",
            "basic_auth_user": user,
            "basic_auth_pass": password,
        }
        return self._call("POST", "/api/ml/", body=body, secrets=(password,))

    def delete_ml_backend(self, backend_id: int) -> None:
        """Disconnect a model server; the webhook Label Studio made for it stays, and must be deleted as well."""
        self._delete(f"/api/ml/{backend_id}")

    # ----------------------------------------------------------------------------------------------------- images

    def fetch_image(self, image_url: str, max_bytes: int) -> bytes:
        """The bytes of a task's image, from this Label Studio only.

        Raises ForbiddenImageUrl, ImageMissing, ImageTooLarge.
        """
        return images.fetch_image(self._connection, image_url, max_bytes)

    # -------------------------------------------------------------------------------------------------- internals

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        secrets: tuple[str, ...] = (),
    ) -> Any:
        content = None if body is None else orjson.dumps(body)
        return self._connection.call(method, path, query=query, content=content, secrets=secrets)

    def _delete(self, path: str) -> None:
        try:
            self._connection.call("DELETE", path)
        except LabelStudioRefused as error:
            if error.status != 404:  # Already gone is gone
                raise

    def _pages(
        self, project_id: int, filters: list[dict[str, Any]], page_size: int, fields: dict[str, str]
    ) -> Iterator[dict[str, Any]]:
        """All matching tasks by ascending id.

        Each page starts behind the last id seen rather than at a page number: while one reads, annotators change and
        delete tasks, and numbered pages would then skip some.
        """
        last_id = 0
        while True:
            query = {"filters": _all_of([*filters, _behind(last_id)]), "ordering": ["tasks:id"]}
            tasks = self._page(project_id, query, 1, page_size, fields)["tasks"]
            yield from tasks
            if len(tasks) < page_size:
                return
            last_id = tasks[-1]["id"]

    def _page(
        self, project_id: int, query: dict[str, Any], page: int, page_size: int, fields: dict[str, str]
    ) -> dict[str, Any]:
        parameters = {
            "project": project_id,
            "page": page,
            "page_size": page_size,
            "query": orjson.dumps(query).decode(),
        }
        return self._call("GET", "/api/tasks", query=parameters | fields)


def _filter(column: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


_UNLABELLED = _filter("is_labeled", "equal", "Boolean", False)
_SCORED = _filter("predictions_score", "empty", "Number", False)


def _behind(task_id: int) -> dict[str, Any]:
    return _filter("id", "greater", "Number", task_id)


def _changed_after(time: datetime) -> dict[str, Any]:
    return _filter("updated_at", "greater", "Datetime", time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def _all_of(filters: list[dict[str, Any]]) -> dict[str, Any]:
    return {"conjunction": "and", "items": filters}


def _task_with_annotations(task: Mapping[str, Any], project_id: int, image_key: str) -> TaskWithAnnotations:
    return TaskWithAnnotations(
        task=parse_task(task, project_id, image_key),
        annotations=[
            parse_annotation({"task": task.get("id"), **item}, project_id)
            for item in a_list(task.get("annotations"), "task.annotations")
        ],
        updated_at=a_time(task.get("updated_at"), "task.updated_at"),
        is_labeled=task.get("is_labeled") is True,
    )


def _batches(items: Iterable[Mapping[str, Any]]) -> Iterator[list[bytes]]:
    """Few large requests, since each costs Label Studio a pass over the project; none too large to receive."""
    batch: list[bytes] = []
    for item in items:
        encoded = orjson.dumps(item)
        if batch and sum(map(len, batch)) + len(encoded) > _BATCH_BYTES:
            yield batch
            batch = []
        batch.append(encoded)
    if batch:
        yield batch
