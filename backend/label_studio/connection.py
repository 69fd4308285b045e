"""One origin, one token: how every request to Label Studio is sent, retried and judged."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import orjson

from backend.label_studio.errors import (
    LabelStudioError,
    LabelStudioRefused,
    LabelStudioUnauthorised,
    LabelStudioUnreachable,
)
from backend.label_studio.tokens import TokenAuth

_PAUSES_SECONDS = (0.2, 0.8)
_CONNECT_SECONDS = 5.0
# What a proxy says while Label Studio starts; a 500 of its own comes back the same each time
_PASSING_STATUSES = (502, 503, 504)
_EXCERPT_CHARS = 300
_EXCERPT_BYTES = 4 * _EXCERPT_CHARS


class Connection:
    """Requests to one Label Studio. Redirects are never followed, so the token never leaves its origin."""

    def __init__(
        self,
        url: str,
        token: str,
        timeout_seconds: float,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base = _base(url)
        self._sleep = sleep
        self._auth = TokenAuth(self.url("/api/token/refresh/"), token)
        self._http = httpx.Client(
            auth=self._auth,
            timeout=httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, _CONNECT_SECONDS)),
            transport=transport,
            # No proxy, certificate or .netrc credentials from the environment
            trust_env=False,
        )

    def close(self) -> None:
        self._http.close()

    def url(self, path: str) -> httpx.URL:
        """``path`` begins with "/"; the base may have a path of its own."""
        return self.base.copy_with(raw_path=self.base.raw_path.rstrip(b"/") + path.encode())

    def call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        content: bytes | None = None,
        timeout_seconds: float | None = None,
        secrets: tuple[str, ...] = (),
    ) -> Any:
        """Send one request and return the decoded JSON of its answer (None where the body is empty).

        ``secrets`` are values in ``content`` that must not show in an error. Raises LabelStudioUnreachable,
        LabelStudioUnauthorised, LabelStudioRefused.
        """
        request = self._http.build_request(
            method,
            self.url(path),
            params=query,
            content=content,
            headers={"Content-Type": "application/json"} if content is not None else None,
            timeout=httpx.Timeout(timeout_seconds, connect=_CONNECT_SECONDS)
            if timeout_seconds
            else httpx.USE_CLIENT_DEFAULT,
        )
        with self.opened(request, secrets) as response:
            if response.is_redirect:
                raise self._refused(request, response, secrets)
            body = _read(response)
        try:
            return orjson.loads(body) if body else None
        except ValueError:
            message = f"{_name(request)} was answered with something that is not JSON; is this URL a Label Studio?"
            raise LabelStudioRefused(message, response.status_code) from None

    def get(self, url: httpx.URL) -> httpx.Request:
        """A request for bytes as they are: not compressed, so that their number can be bounded."""
        return self._http.build_request("GET", url, headers={"Accept": "*/*", "Accept-Encoding": "identity"})

    @contextmanager
    def opened(self, request: httpx.Request, secrets: tuple[str, ...] = ()) -> Iterator[httpx.Response]:
        """The answer to ``request``, good or a redirect, its body not read yet."""
        response = self._send(request)
        try:
            if response.status_code == 401:
                raise LabelStudioUnauthorised(
                    f"Label Studio does not accept the configured token ({_name(request)} was answered 401); "
                    "a legacy token must be allowed for the organisation, or use a personal access token",
                    self._excerpt(response, secrets),
                )
            if response.status_code >= 400:
                raise self._refused(request, response, secrets)
            yield response
        finally:
            response.close()

    def _send(self, request: httpx.Request) -> httpx.Response:
        """Send, and send again where that is harmless: a GET that met a closed door or a proxy's apology."""
        pauses = _PAUSES_SECONDS if request.method == "GET" else ()
        for pause_seconds in pauses:
            try:
                response = self._http.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                self._sleep(pause_seconds)
                continue
            except (httpx.RequestError, httpx.InvalidURL) as error:
                raise self._failed(request, error) from error
            if response.status_code not in _PASSING_STATUSES:
                return response
            response.close()
            self._sleep(pause_seconds)
        try:
            return self._http.send(request, stream=True)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise self._failed(request, error) from error

    def _failed(self, request: httpx.Request, error: httpx.RequestError | httpx.InvalidURL) -> LabelStudioError:
        if isinstance(error, httpx.InvalidURL):
            return LabelStudioRefused(f"{_name(request)} was redirected to something that is not a URL", 302)
        return LabelStudioUnreachable(
            f"no answer to {_name(request)} ({type(error).__name__}); is Label Studio running at {self.base}?"
        )

    def _refused(
        self, request: httpx.Request, response: httpx.Response, secrets: tuple[str, ...]
    ) -> LabelStudioRefused:
        excerpt = self._excerpt(response, secrets)
        return LabelStudioRefused(
            f"{_name(request)} was answered {response.status_code}: {excerpt}", response.status_code, excerpt
        )

    def _excerpt(self, response: httpx.Response, secrets: tuple[str, ...]) -> str:
        """The start of an error's body, without tokens of ours and without what the request kept secret."""
        excerpt = self._auth.redacted(_excerpt(response))
        for secret in filter(None, secrets):
            excerpt = excerpt.replace(secret, "***")
        return excerpt[:_EXCERPT_CHARS]


def _base(url: str) -> httpx.URL:
    try:
        base = httpx.URL(url.strip())
    except httpx.InvalidURL:
        base = httpx.URL()
    if base.scheme not in ("http", "https") or not base.host or base.userinfo or base.query or base.fragment:
        raise LabelStudioUnreachable(
            "the URL of Label Studio must be http(s)://host[:port][/path] without user, query or fragment"
        )
    return base


def _name(request: httpx.Request) -> str:
    # Without the query: it may be long, and says nothing the path does not
    return f"{request.method} {request.url.path}"


def _read(response: httpx.Response) -> bytes:
    try:
        return response.read()
    except httpx.RequestError as error:
        raise LabelStudioUnreachable(f"the answer broke off ({type(error).__name__}); try again") from error


def _excerpt(response: httpx.Response) -> str:
    """The start of an error's body, which may be a page of any length."""
    start = b""
    try:
        for chunk in response.iter_bytes():
            start += chunk
            if len(start) >= _EXCERPT_BYTES:
                break
    except httpx.RequestError:
        pass  # The status is the news; half an excerpt will do
    return " ".join(start[:_EXCERPT_BYTES].decode(errors="replace").split())
