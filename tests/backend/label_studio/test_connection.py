"""Requests that fail, tokens that expire, and secrets that stay secret."""

import logging

import httpx
import pytest

from backend.label_studio.errors import LabelStudioRefused, LabelStudioUnauthorised, LabelStudioUnreachable
from tests.backend.label_studio.fakes import LEGACY, PAT, body_of, client, jwt, requests_of


@pytest.fixture
def pauses(monkeypatch):
    taken: list[float] = []
    monkeypatch.setattr("backend.label_studio.connection.Connection.__init__.__defaults__", (None, taken.append))
    return taken


# --------------------------------------------------------------------------------------------------------- what fails


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
        label_studio.import_predictions(1, [{"task": 1}])
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
