"""Label Studio's REST API, as far as the service needs it (measured on 1.23.2).

Why not the SDK's client: pictures need the same token as the API, and the SDK's helper for them does not exchange a
personal access token; its answers are read whole, whatever their size; and importing it takes seconds. Here one
authentication serves both, every wait has an end, and every byte is counted.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from backend.label_studio import connections, images, inspection
from backend.label_studio.connection import Connection
from backend.label_studio.errors import PredictionsDropped, QueueKeptChanging
from backend.label_studio.fields import a_list, a_time, an_object
from backend.label_studio.filters import SCORED, SERVED, UNLABELLED, UNSCORED, all_of, behind, changed_after, having
from backend.label_studio.image_hosts import ImageHosts, Outside
from backend.label_studio.label_config import parse_label_config
from backend.label_studio.payloads import Annotation, Task, parse_annotation, parse_task

_PAGE_SIZE = 500
_IDS_ALONE = {"include": "id"}
_ID_PAGE_SIZE = 5000
_BATCH_BYTES = 32_000_000
# Without the predictions, which of a thousand tasks may be many megabytes, and with the data as it is stored: resolved,
# the URL of one image may be another one each time
_TASK_FIELDS = {
    "fields": "all",
    # The list holds for the annotations inside as well: what it does not name, they do not have.
    "include": "id,data,annotations,updated_at,is_labeled,"
    "created_at,result,completed_by,was_cancelled,lead_time,parent_prediction",
    "resolve_uri": "false",
}
# Label Studio works through thousands of predictions inside one request: 1 to 13 ms each
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
        self,
        url: str,
        token: str,
        *,
        timeout_seconds: float = 30,
        transport: httpx.BaseTransport | None = None,
        outside: Outside | None = None,
    ) -> None:
        self._connection = Connection(url, token, timeout_seconds, transport)
        self._outside = outside or Outside(ImageHosts())

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
        self._outside.close()

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
        changed = [] if updated_after is None else [changed_after(updated_after)]
        for task in self._pages(project_id, changed, _PAGE_SIZE, _TASK_FIELDS):
            yield _task_with_annotations(task, project_id, image_key)

    def task_ids(self, project_id: int) -> set[int]:
        return {task["id"] for task in self._pages(project_id, [], _ID_PAGE_SIZE, {"include": "id"})}

    def annotation(self, annotation_id: int) -> dict[str, Any]:
        """One annotation with its `result`; LabelStudioRefused with status 404 when there is none."""
        return self._call("GET", f"/api/annotations/{annotation_id}/")

    # ------------------------------------------------------------------------------------ predictions and the queue

    def prediction(self, prediction_id: int) -> dict[str, Any]:
        """One prediction with `model_version` and `result`; LabelStudioRefused with status 404 once it is deleted."""
        return self._call("GET", f"/api/predictions/{prediction_id}/")

    def import_predictions(self, project_id: int, items: Iterable[Mapping[str, Any]]) -> int:
        """Store predictions made by ``payloads.prediction``; returns how many. Sending the same twice stores it twice.

        Raises PredictionsDropped.
        """
        return sum(self.import_encoded(project_id, batch) for batch in _batches(items))

    def import_encoded(self, project_id: int, items: Sequence[bytes]) -> int:
        """Store predictions, each the JSON of one, in one request; returns how many.

        Label Studio drops what it does not like and answers 201 all the same: raises PredictionsDropped when it
        stored fewer than were sent. Sending the same twice stores it twice. Of a request with a task that does not
        exist (400) some may have been stored.
        """
        content = b"[" + b",".join(items) + b"]"
        path = f"/api/projects/{project_id}/import/predictions"
        answer = self._connection.call("POST", path, content=content, timeout_seconds=_BULK_SECONDS)
        created = an_object(answer, "answer").get("created", 0)
        if created != len(items):
            raise PredictionsDropped(
                f"Label Studio stored {created} of {len(items)} predictions in project {project_id} and dropped the "
                "rest silently; compare labels and control names with the label config, and scores with [0, 1]"
            )
        return len(items)

    def model_versions(self, project_id: int) -> dict[str, int]:
        """How many predictions of each model version Label Studio holds."""
        return self._call("GET", f"/api/projects/{project_id}/model-versions/")

    def tasks_with(self, project_id: int, version: str) -> set[int]:
        """Ids of the tasks with at least one prediction of a model version, or of one whose name holds this name."""
        return {task["id"] for task in self._pages(project_id, [having(version)], _ID_PAGE_SIZE, {"include": "id"})}

    def prediction_ids(self, project_id: int, version: str, tasks: int) -> list[int]:
        """Ids of all predictions of a model version on the first ``tasks`` tasks that have one."""
        query = {"filters": all_of([having(version)]), "ordering": ["tasks:id"]}
        page = self._page(project_id, query, 1, tasks, {"fields": "all", "include": "id,predictions"})
        there = [one for task in page["tasks"] for one in task["predictions"]]
        return [one["id"] for one in there if one["model_version"] == version]

    def delete_model_version(self, project_id: int, version: str) -> None:
        """Delete all predictions of a model version: 5 to 10 ms each, and whoever submits meanwhile waits for the end.

        Without its current one a project has no queue.
        """
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

    def served_page(self, project_id: int, page: int, size: int) -> tuple[list[int], int]:
        """Ids of one page, from 1, of the served order, and how many tasks the order has."""
        answer = self._page(project_id, SERVED, page, size, {"include": "id"})
        return [task["id"] for task in answer["tasks"]], answer["total"]

    def _read_order(self, project_id: int) -> list[int] | None:
        """One reading of the whole queue, or None where it changed between two pages."""
        order: list[int] = []
        total = None
        while total is None or len(order) < total:
            page = len(order) // _ID_PAGE_SIZE + 1
            found, size = self.served_page(project_id, page, _ID_PAGE_SIZE)
            if total not in (None, size) or (size > len(order) and not found):
                return None
            total = size
            order += found
        return order if len(set(order)) == len(order) else None

    def unlabelled_tasks(self, project_id: int) -> list[int]:
        return [task["id"] for task in self._pages(project_id, [UNLABELLED], _ID_PAGE_SIZE, _IDS_ALONE)]

    def unserved_tasks(self, project_id: int) -> list[int]:
        """Ids of unlabelled tasks without a scored prediction of the project's current model version."""
        return [task["id"] for task in self._pages(project_id, [UNLABELLED, UNSCORED], _ID_PAGE_SIZE, _IDS_ALONE)]

    def surplus_predictions(self, project_id: int, version: str) -> list[int]:
        """Ids of all but the oldest prediction of one version, the project's current one, for each unlabelled task."""
        query = {"filters": all_of([SCORED]), "ordering": ["tasks:id"]}
        tasks = self._page(project_id, query, 1, 1, _IDS_ALONE)["total"]
        if self.model_versions(project_id).get(version, 0) <= tasks:
            return []
        # Columns are filled only where a filter asks for them.
        fields = {"include": "id,total_predictions,predictions_model_versions"}
        filters = [UNLABELLED, having(version)]
        found = []
        for task in self._pages(project_id, filters, _ID_PAGE_SIZE, fields):
            if task["total_predictions"] > len(task["predictions_model_versions"].split(",")):
                found += self._surplus(task["id"], version)
        return found

    def _surplus(self, task_id: int, version: str) -> list[int]:
        return self.task_predictions(task_id, version)[1:]

    def task_predictions(self, task_id: int, version: str) -> list[int]:
        """Ids of a task's predictions of a model version, oldest first."""
        there = self._call("GET", "/api/predictions/", query={"task": task_id})
        return sorted(one["id"] for one in there if one["model_version"] == version)

    def delete_prediction(self, prediction_id: int) -> None:
        connections.delete(self._connection, f"/api/predictions/{prediction_id}/")

    # ------------------------------------------------------------------------------------------------ connections

    def webhooks(self, project_id: int) -> list[dict[str, Any]]:
        return self._call("GET", "/api/webhooks/", query={"project": project_id})

    def create_webhook(
        self, project_id: int, url: str, headers: Mapping[str, str], actions: Sequence[str]
    ) -> dict[str, Any]:
        """Have Label Studio tell ``url`` about ``actions``, with ``headers`` as proof that it is Label Studio."""
        body = connections.webhook(project_id, url, headers, actions)
        return connections.send(self._connection, "POST", "/api/webhooks/", body, tuple(headers.values()))

    def update_webhook(
        self, webhook_id: int, project_id: int, url: str, headers: Mapping[str, str], actions: Sequence[str]
    ) -> dict[str, Any]:
        """Make an existing webhook what ``create_webhook`` would have made."""
        body = connections.webhook(project_id, url, headers, actions)
        path = f"/api/webhooks/{webhook_id}/"
        return connections.send(self._connection, "PATCH", path, body, tuple(headers.values()))

    def delete_webhook(self, webhook_id: int) -> None:
        connections.delete(self._connection, f"/api/webhooks/{webhook_id}/")

    def ml_backends(self, project_id: int) -> list[dict[str, Any]]:
        """The project's model servers; to answer, Label Studio asks each of them for its health."""
        return self._call("GET", "/api/ml", query={"project": project_id})

    def create_ml_backend(self, project_id: int, url: str, title: str, user: str, password: str) -> dict[str, Any]:
        """Connect a model server, which must be up: Label Studio calls its /health and /setup before it answers."""
        body = connections.model_server(project_id, url, title, user, password)
        return connections.send(self._connection, "POST", "/api/ml/", body, (password,))

    def update_ml_backend(
        self, backend_id: int, project_id: int, url: str, title: str, user: str, password: str
    ) -> dict[str, Any]:
        """Make an existing model server what ``create_ml_backend`` would have made; it must be up as well."""
        body = connections.model_server(project_id, url, title, user, password)
        return connections.send(self._connection, "PATCH", f"/api/ml/{backend_id}", body, (password,))

    def delete_ml_backend(self, backend_id: int) -> None:
        """Disconnect a model server; the webhook Label Studio made for it stays, and must be deleted as well."""
        connections.delete(self._connection, f"/api/ml/{backend_id}")

    def tabs(self, project_id: int) -> list[dict[str, Any]]:
        """Tabs of the project's Data Manager, from left to right; ``data`` holds title, filters and ordering."""
        return self._call("GET", "/api/dm/views/", query={"project": project_id})

    def create_tab(self, project_id: int, data: Mapping[str, Any]) -> dict[str, Any]:
        return connections.send(self._connection, "POST", "/api/dm/views/", connections.tab(project_id, data))

    def update_tab(self, tab_id: int, project_id: int, data: Mapping[str, Any]) -> dict[str, Any]:
        path = f"/api/dm/views/{tab_id}/"
        return connections.send(self._connection, "PATCH", path, connections.tab(project_id, data))

    def delete_tab(self, tab_id: int) -> None:
        connections.delete(self._connection, f"/api/dm/views/{tab_id}/")

    # ------------------------------------------------------------------------------------------------- inspection

    def require_access(self) -> None:
        """Raise LabelStudioUnauthorised where the token opens nothing."""
        inspection.require_access(self._connection)

    def release(self) -> str:
        return inspection.release(self._connection)

    def lock_seconds(self) -> float | None:
        return inspection.lock_seconds(self._connection)

    def refusals(self, project_id: int, url: str) -> inspection.Refusals:
        return inspection.refusals(self._connection, project_id, url)

    # ----------------------------------------------------------------------------------------------------- images

    def fetch_image(self, image_url: str, max_bytes: int, task_id: int | None = None) -> bytes:
        """The bytes of a task's image, from this Label Studio or from a host that was named as allowed.

        ``task_id`` is needed for a file in a cloud storage. Raises ForbiddenImageUrl, ImageMissing, ImageTooLarge.
        """
        return images.fetch_image(self._connection, self._outside, image_url, max_bytes, task_id)

    # -------------------------------------------------------------------------------------------------- internals

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        content = None if body is None else orjson.dumps(body)
        return self._connection.call(method, path, query=query, content=content)

    def _pages(
        self, project_id: int, filters: list[dict[str, Any]], page_size: int, fields: dict[str, str]
    ) -> Iterator[dict[str, Any]]:
        """All matching tasks by ascending id.

        Each page starts behind the last id seen rather than at a page number: while one reads, annotators change and
        delete tasks, and numbered pages would then skip some.
        """
        last_id = 0
        while True:
            query = {"filters": all_of([*filters, behind(last_id)]), "ordering": ["tasks:id"]}
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
