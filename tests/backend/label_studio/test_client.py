"""The client against a Label Studio made of functions: what it asks, and what it makes of answers."""

import json
from datetime import UTC, datetime, timedelta, timezone

import httpx
import pytest

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.errors import (
    BadPayload,
    LabelStudioRefused,
    LabelStudioUnreachable,
    PredictionsDropped,
    QueueKeptChanging,
    UnsupportedLabelConfig,
)
from tests.backend.label_studio.fakes import body_of, client, requests_of

CONFIG_XML = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Lesion"/></BrushLabels></View>'
)


# ------------------------------------------------------------------------------------------------- asking and telling


def test_a_path_before_the_api_is_kept():
    (request,) = requests_of(lambda c: c.project(3), url="https://host.test/tools/ls/")
    assert str(request.url) == "https://host.test/tools/ls/api/projects/3/"


@pytest.mark.parametrize(
    "url",
    ["", "label-studio:8080", "ftp://host", "http://", "http://user:s3cret@host", "http://host/?a=1", "http://[::1"],
)
def test_an_impossible_url_is_refused_without_repeating_it(url):
    with pytest.raises(LabelStudioUnreachable, match="http") as caught:
        client(None, url=url)
    assert "s3cret" not in str(caught.value)


def test_update_project_sends_only_what_changes():
    (request,) = requests_of(lambda c: c.update_project(3, model_version="v1", sampling="Uncertainty sampling"))
    assert (request.method, request.url.path) == ("PATCH", "/api/projects/3/")
    assert body_of(request) == {"model_version": "v1", "sampling": "Uncertainty sampling"}


def test_a_webhook_names_its_actions_and_carries_its_secret():
    (request,) = requests_of(lambda c: c.create_webhook(3, "http://api.test/webhook", {"X-S": "x"}, ["TASKS_CREATED"]))
    body = body_of(request)
    assert (body["headers"], body["actions"], body["send_for_all_actions"]) == ({"X-S": "x"}, ["TASKS_CREATED"], False)
    assert body["send_payload"] is True


def test_a_model_server_is_connected_with_basic_auth():
    (request,) = requests_of(lambda c: c.create_ml_backend(3, "http://api.test", "wardround", "wardround", "pass"))
    body = body_of(request)
    assert (request.url.path, body["project"], body["auth_method"]) == ("/api/ml/", 3, "BASIC_AUTH")
    assert (body["basic_auth_user"], body["basic_auth_pass"]) == ("wardround", "pass")


@pytest.mark.parametrize("delete", [LabelStudioClient.delete_webhook, LabelStudioClient.delete_ml_backend])
def test_deleting_what_is_gone_is_done(delete):
    requests_of(lambda c: delete(c, 5), lambda request: httpx.Response(404))
    with pytest.raises(LabelStudioRefused):
        requests_of(lambda c: delete(c, 5), lambda request: httpx.Response(403))


# -------------------------------------------------------------------------------------------------------- predictions


def items(count, size=10):
    return [{"task": n + 1, "result": "x" * size} for n in range(count)]


def test_predictions_go_in_one_call_where_they_fit():
    (request,) = requests_of(
        lambda c: c.import_predictions(3, items(50)), lambda request: httpx.Response(201, json={"created": 50})
    )
    assert body_of(request) == items(50)


def test_many_bytes_go_in_several_calls_and_none_is_lost(monkeypatch):
    monkeypatch.setattr("backend.label_studio.client._BATCH_BYTES", 100)
    seen = requests_of(
        lambda c: c.import_predictions(3, iter(items(7, size=20))),
        lambda request: httpx.Response(201, json={"created": len(body_of(request))}),
    )
    assert len(seen) > 1
    assert all(len(request.content) <= 110 for request in seen)
    assert [item for request in seen for item in body_of(request)] == items(7, size=20)


def test_no_predictions_are_no_call():
    assert requests_of(lambda c: c.import_predictions(3, [])) == []


@pytest.mark.parametrize("answer", [{"created": 1}, {"created": 3}, {}])
def test_predictions_dropped_in_silence_are_raised(answer):
    with pytest.raises(PredictionsDropped, match="of 2 predictions in project 3"):
        requests_of(lambda c: c.import_predictions(3, items(2)), lambda request: httpx.Response(201, json=answer))


# ------------------------------------------------------------------------------------------------------ reading tasks


class Tasks:
    """Enough of the Data Manager: filters on id and updated_at, order, pages; counts its answers."""

    def __init__(self, ids, on_answer=None):
        self.ids = list(ids)
        self.queries = []
        self._on_answer = on_answer

    def __call__(self, request):
        if "/projects/" in request.url.path:
            return httpx.Response(200, json={"label_config": CONFIG_XML})
        query = json.loads(request.url.params["query"])
        self.queries.append(query)
        behind = [item["value"] for item in query["filters"]["items"] if item["filter"] == "filter:tasks:id"]
        matching = [task_id for task_id in self.ids if task_id > max(behind, default=0)]
        size, page = int(request.url.params["page_size"]), int(request.url.params["page"])
        start = size * (page - 1)
        answer = {"total": len(matching), "tasks": [task(n) for n in matching[start : start + size]]}
        if self._on_answer:
            self._on_answer(self)
        return httpx.Response(200, json=answer)


def task(task_id):
    return {
        "id": task_id,
        "data": {"image": f"/data/upload/{task_id}.png"},
        "updated_at": "2026-11-23T01:00:00Z",
        "is_labeled": task_id % 2 == 0,
        "annotations": [
            {
                "id": task_id * 10,
                "created_at": "2026-11-23T00:00:00Z",
                "updated_at": "2026-11-23T01:00:00Z",
                "completed_by": 1,
                "was_cancelled": True,
                "result": [],
            }
        ],
    }


def test_all_tasks_come_with_their_annotations():
    with client(Tasks([1, 2])) as label_studio:
        first, second = label_studio.tasks(3)
    assert (first.task.id, first.task.project_id, first.task.image_url) == (1, 3, "/data/upload/1.png")
    assert (first.is_labeled, second.is_labeled) == (False, True)
    assert [(a.id, a.task_id, a.skipped) for a in second.annotations] == [(20, 2, True)]
    assert first.updated_at == datetime(2026, 11, 23, 1, tzinfo=UTC)


def test_pages_are_followed_to_the_end(monkeypatch):
    monkeypatch.setattr("backend.label_studio.client._ID_PAGE_SIZE", 3)
    for count in range(8):
        with client(Tasks(range(1, count + 1))) as label_studio:
            assert label_studio.task_ids(3) == set(range(1, count + 1))


def test_every_task_comes_once_and_in_order_over_pages(monkeypatch):
    monkeypatch.setattr("backend.label_studio.client._PAGE_SIZE", 3)
    with client(Tasks(range(1, 9))) as label_studio:
        assert [item.task.id for item in label_studio.tasks(3)] == list(range(1, 9))


def test_a_task_deleted_while_reading_hides_no_other(monkeypatch):
    monkeypatch.setattr("backend.label_studio.client._ID_PAGE_SIZE", 3)
    with client(Tasks(range(1, 10), on_answer=lambda server: server.ids.pop(0))) as label_studio:
        assert label_studio.task_ids(3) == set(range(1, 10))


def test_changed_tasks_are_asked_for_in_universal_time():
    server = Tasks([1])
    with client(server) as label_studio:
        list(label_studio.tasks(3, datetime(2026, 11, 23, 2, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))))
    assert {
        "filter": "filter:tasks:updated_at",
        "operator": "greater",
        "type": "Datetime",
        "value": "2026-11-23T01:00:00.000005Z",
    } in server.queries[0]["filters"]["items"]


def test_a_project_that_cannot_be_painted_says_so():
    with (
        client(lambda request: httpx.Response(200, json={"label_config": "<View/>"})) as label_studio,
        pytest.raises(UnsupportedLabelConfig),
    ):
        list(label_studio.tasks(3))


def test_a_task_that_is_not_one_is_named():
    def server(request):
        answer = {"label_config": CONFIG_XML, "total": 1, "tasks": [{"id": "x"}]}
        return httpx.Response(200, json=answer)

    with client(server) as label_studio, pytest.raises(BadPayload, match="task"):
        list(label_studio.tasks(3))


def test_the_served_order_is_asked_by_score_of_what_is_unlabelled_and_scored():
    server = Tasks([4, 1, 3])
    with client(server) as label_studio:
        assert label_studio.served_order(3) == [4, 1, 3]
    (query,) = server.queries
    assert query["ordering"] == ["tasks:predictions_score"]
    assert {item["filter"].split(":")[-1] for item in query["filters"]["items"]} == {"is_labeled", "predictions_score"}


def test_the_served_order_keeps_its_order_over_pages(monkeypatch):
    monkeypatch.setattr("backend.label_studio.client._ID_PAGE_SIZE", 2)
    for order in ([], [3], [3, 1], [5, 1, 4, 2, 3], [6, 5, 4, 3, 2, 1]):
        with client(Tasks(order)) as label_studio:
            assert label_studio.served_order(3) == order


def test_a_queue_that_moves_while_it_is_read_is_read_again(monkeypatch):
    monkeypatch.setattr("backend.label_studio.client._ID_PAGE_SIZE", 2)

    def annotate_once(server):
        if len(server.queries) == 1:
            server.ids.pop(0)

    with client(Tasks([9, 8, 7, 6, 5], annotate_once)) as label_studio:
        assert label_studio.served_order(3) == [8, 7, 6, 5]


def test_a_queue_that_never_stands_still_is_not_guessed(monkeypatch):
    monkeypatch.setattr("backend.label_studio.client._ID_PAGE_SIZE", 2)
    with (
        client(Tasks(range(1, 40), lambda server: server.ids.pop(0))) as label_studio,
        pytest.raises(QueueKeptChanging),
    ):
        label_studio.served_order(3)
