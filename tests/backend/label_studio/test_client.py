"""The client against a Label Studio made of functions: what it asks, what it makes of answers, what it never tells."""

import base64
import json
import logging
from datetime import UTC, datetime, timedelta, timezone

import httpx
import pytest

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.errors import (
    BadPayload,
    LabelStudioRefused,
    LabelStudioUnauthorised,
    LabelStudioUnreachable,
    PredictionsDropped,
    QueueKeptChanging,
    UnsupportedLabelConfig,
)

URL = "http://label-studio.test:8080"
LEGACY = "0123456789abcdef0123456789abcdef01234567"
CONFIG_XML = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Lesion"/></BrushLabels></View>'
)


def client(answer, url=URL, token=LEGACY):
    return LabelStudioClient(url, token, transport=httpx.MockTransport(answer))


def requests_of(call, answer=None, **options):
    """The requests that ``call`` makes, each answered by ``answer``."""
    seen = []

    def server(request):
        seen.append(request)
        return answer(request) if answer else httpx.Response(200, json={})

    with client(server, **options) as label_studio:
        call(label_studio)
    return seen


def body_of(request):
    return json.loads(request.content)


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


# --------------------------------------------------------------------------------------------------------- what fails


@pytest.fixture
def pauses(monkeypatch):
    taken: list[float] = []
    monkeypatch.setattr("backend.label_studio.connection.Connection.__init__.__defaults__", (None, taken.append))
    return taken


def failing(times, failure):
    """A server that fails a number of times and then answers."""
    seen = []

    def server(request):
        seen.append(request.method)
        if len(seen) > times:
            return httpx.Response(200, json={"ok": 1})
        if isinstance(failure, Exception):
            raise failure
        return httpx.Response(failure)

    return server, seen


@pytest.mark.parametrize("failure", [502, 503, httpx.ConnectError("no"), httpx.ConnectTimeout("no")])
def test_a_get_is_tried_three_times(pauses, failure):
    server, seen = failing(2, failure)
    with client(server) as label_studio:
        assert label_studio.project(1) == {"ok": 1}
    assert len(seen) == 3
    assert pauses == sorted(pauses)
    assert 0 < sum(pauses) < 5

    server, seen = failing(3, failure)
    with client(server) as label_studio, pytest.raises((LabelStudioRefused, LabelStudioUnreachable)) as caught:
        label_studio.project(1)
    assert caught.value.retryable
    assert len(seen) == 3


@pytest.mark.parametrize("failure", [502, httpx.ConnectError("no")])
def test_what_may_have_happened_already_is_not_repeated(pauses, failure):
    server, seen = failing(1, failure)
    with client(server) as label_studio, pytest.raises((LabelStudioRefused, LabelStudioUnreachable)):
        label_studio.import_predictions(1, items(1))
    assert seen == ["POST"]
    assert pauses == []


@pytest.mark.parametrize("failure", [400, 404, 500, httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("broken")])
def test_a_get_that_was_heard_is_not_repeated(pauses, failure):
    server, seen = failing(1, failure)
    with client(server) as label_studio, pytest.raises((LabelStudioRefused, LabelStudioUnreachable)):
        label_studio.project(1)
    assert seen == ["GET"]


def test_a_refusal_tells_what_was_asked_and_what_was_said():
    with pytest.raises(LabelStudioRefused, match=r"GET /api/projects/9/ was answered 404: .*Not found") as caught:
        requests_of(lambda c: c.project(9), lambda request: httpx.Response(404, json={"detail": "Not found."}))
    assert caught.value.status == 404
    assert not caught.value.retryable


def test_an_error_page_is_cut_short():
    with pytest.raises(LabelStudioRefused) as caught:
        requests_of(lambda c: c.project(9), lambda request: httpx.Response(404, text="<html>" * 100_000))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ["<html>welcome</html>", "{"])
def test_an_answer_that_is_not_json_asks_whether_this_is_label_studio(text):
    with pytest.raises(LabelStudioRefused, match="is this URL a Label Studio"):
        requests_of(lambda c: c.project(9), lambda request: httpx.Response(200, text=text))


def test_a_redirect_is_not_followed_and_not_taken_for_an_answer():
    seen = []

    def server(request):
        seen.append(str(request.url))
        return httpx.Response(302, headers={"Location": "http://evil.test/"}, text="{}")

    with client(server) as label_studio, pytest.raises(LabelStudioRefused, match="302"):
        label_studio.project(1)
    assert len(seen) == 1


# ------------------------------------------------------------------------------------------------------------- tokens


def jwt(lifetime_seconds, name="access"):
    def part(claims):
        return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")

    return f"{part({'alg': 'HS256'})}.{part({'iat': 1000, 'exp': 1000 + lifetime_seconds, 'n': name})}.sig-{name}"


PAT = jwt(200 * 365 * 86400, "refresh")


class Tokens:
    """A Label Studio that hands out numbered access tokens and accepts only the newest."""

    def __init__(self, lifetime_seconds=300.0):
        self.issued = 0
        self.answered = []
        self._lifetime_seconds = lifetime_seconds

    def current(self):
        return jwt(self._lifetime_seconds, str(self.issued))

    def __call__(self, request):
        if request.url.path == "/api/token/refresh/":
            if body_of(request) != {"refresh": PAT}:
                return httpx.Response(401, json={"detail": "Token is invalid"})
            self.issued += 1
            return httpx.Response(200, json={"access": self.current()})
        good = self.issued and request.headers["Authorization"] == f"Bearer {self.current()}"
        self.answered.append(200 if good else 401)
        return httpx.Response(self.answered[-1], json={})


def test_a_legacy_token_is_sent_as_it_is():
    (request,) = requests_of(lambda c: c.project(1))
    assert request.headers["Authorization"] == f"Token {LEGACY}"


def test_a_personal_token_is_exchanged_once_and_used_until_it_is_old():
    server = Tokens()
    with client(server, token=PAT) as label_studio:
        for _ in range(3):
            label_studio.project(1)
    assert (server.issued, server.answered) == (1, [200, 200, 200])


def test_an_access_token_is_renewed_before_it_expires(monkeypatch):
    now = [0.0]
    server = Tokens(lifetime_seconds=300)
    monkeypatch.setattr("backend.label_studio.connection.TokenAuth.__init__.__defaults__", (lambda: now[0],))
    with client(server, token=PAT) as label_studio:
        for now[0], issued in [(0, 1), (200, 1), (290, 2), (400, 2), (570, 3)]:
            label_studio.project(1)
            assert server.issued == issued
    assert server.answered == [200] * 5


def test_an_access_token_that_label_studio_forgot_is_renewed_once():
    server = Tokens()
    with client(server, token=PAT) as label_studio:
        label_studio.project(1)
        server.issued += 1  # a restart: the token in use is no longer accepted
        label_studio.project(1)
    assert server.answered == [200, 401, 200]


def test_a_token_that_is_never_accepted_ends_after_one_renewal():
    calls = []

    def server(request):
        calls.append(request.url.path)
        refresh = request.url.path.endswith("/refresh/")
        return httpx.Response(200, json={"access": jwt(300)}) if refresh else httpx.Response(401)

    with client(server, token=PAT) as label_studio, pytest.raises(LabelStudioUnauthorised, match="token"):
        label_studio.project(1)
    assert len(calls) == 4


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_revoked_personal_token_says_how_to_get_another(status):
    with pytest.raises(LabelStudioUnauthorised, match="create a personal access token"):
        requests_of(lambda c: c.project(1), lambda request: httpx.Response(status), token=PAT)


def test_a_wrong_legacy_token_is_unauthorised():
    with pytest.raises(LabelStudioUnauthorised, match="legacy"):
        requests_of(lambda c: c.project(1), lambda request: httpx.Response(401))


@pytest.mark.parametrize("body", [b"", b"{}", b'{"access": 3}', b'{"access": "a.b.c"}', b'{"access": "s3cret"}'])
def test_a_refresh_answered_with_something_else_is_refused_without_showing_it(body):
    with pytest.raises(LabelStudioRefused, match="refresh") as caught:
        requests_of(lambda c: c.project(1), lambda request: httpx.Response(200, content=body), token=PAT)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("token", ["", " ", "s3cret\nX-Evil: 1", "s3cret s3cret", "s3crét"])
def test_an_impossible_token_is_refused_without_showing_it(token):
    with pytest.raises(LabelStudioUnauthorised) as caught:
        client(None, token=token)
    assert "s3cr" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------ secrets


@pytest.mark.parametrize("token", [LEGACY, PAT])
@pytest.mark.parametrize("failure", [400, 401, 500, httpx.ConnectError("no")])
def test_no_secret_reaches_a_log_an_error_or_a_repr(token, failure, caplog, pauses):
    def server(request):
        if isinstance(failure, Exception):
            raise failure
        if request.url.path.endswith("/refresh/"):
            return httpx.Response(200, json={"access": jwt(300, "bearer")})
        echo = request.headers["Authorization"] + request.content.decode()
        return httpx.Response(failure, text=echo)

    caplog.set_level(logging.DEBUG)
    texts = []
    with client(server, token=token) as label_studio:
        texts += [repr(label_studio), str(label_studio), repr(vars(label_studio)), repr(vars(label_studio._connection))]
        for call in (
            lambda: label_studio.project(1),
            lambda: label_studio.create_webhook(1, "http://api.test", {"X-Wardround-Secret": "hook-s3cret"}, []),
            lambda: label_studio.create_ml_backend(1, "http://api.test", "t", "wardround", "api-s3cret"),
        ):
            with pytest.raises((LabelStudioRefused, LabelStudioUnauthorised, LabelStudioUnreachable)) as caught:
                call()
            texts += [str(caught.value), repr(caught.value), repr(vars(caught.value))]
    shown = "\n".join([*texts, caplog.text])
    for secret in (token, "hook-s3cret", "api-s3cret", jwt(300, "bearer")):
        assert secret not in shown
