"""Proving who we are to Label Studio: a personal access token, or the legacy token of older organisations."""

import base64
import re
import time
from collections.abc import Callable, Generator

import httpx
import orjson

from backend.label_studio.errors import LabelStudioRefused, LabelStudioUnauthorised

_CURE = "create a personal access token (Account & Settings, Access Tokens) and configure it"
_SAFETY_SECONDS = 30.0
_SHORTEST_LIFETIME_SECONDS = 1.0


class TokenAuth(httpx.Auth):
    """Adds the Authorization header.

    A personal access token is a JWT that Label Studio accepts only in exchange for an access token, which lives five
    minutes: it is fetched at first use, again shortly before it expires, and once more when Label Studio answers
    401. A legacy token is sent as it is. Two threads may refresh at the same time; each then holds a valid token.
    """

    def __init__(self, refresh_url: httpx.URL, token: str, clock: Callable[[], float] = time.monotonic) -> None:
        # Anything else would break the header, and the error of the HTTP library would show it
        if not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", token):
            raise LabelStudioUnauthorised(f"the Label Studio token is empty or holds impossible characters; {_CURE}")
        self._refresh_url = refresh_url
        self._token = token
        self._clock = clock
        self._personal = token.count(".") == 2
        self._header = "" if self._personal else f"Token {token}"
        self._stale_at = 0.0 if self._personal else float("inf")

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send ``request`` with a fresh header. Raises LabelStudioUnauthorised, LabelStudioRefused."""
        if self._clock() >= self._stale_at or not self._header:
            yield from self._refresh()
        request.headers["Authorization"] = self._header
        response = yield request
        if response.status_code == 401 and self._personal:
            yield from self._refresh()
            request.headers["Authorization"] = self._header
            yield request

    def redacted(self, text: str) -> str:
        """``text`` without any token of ours: an error page may repeat the request it answers."""
        for secret in filter(None, (self._token, self._header.partition(" ")[2])):
            text = text.replace(secret, "***")
        return text

    def _refresh(self) -> Generator[httpx.Request, httpx.Response, None]:
        asked_at = self._clock()
        response = yield httpx.Request("POST", self._refresh_url, json={"refresh": self._token})
        if response.status_code in (400, 401, 403):
            raise LabelStudioUnauthorised(f"Label Studio does not accept the personal access token; {_CURE}")
        if response.status_code != 200:
            raise LabelStudioRefused("Label Studio did not refresh the access token", response.status_code)
        access, lifetime_seconds = _read_access(response.read())
        self._header = f"Bearer {access}"
        self._stale_at = asked_at + max(lifetime_seconds - _SAFETY_SECONDS, _SHORTEST_LIFETIME_SECONDS)


def _read_access(body: bytes) -> tuple[str, float]:
    """The access token and its lifetime: the span between its own two times, so clocks need not agree."""
    try:
        access = orjson.loads(body)["access"]
        claims = access.split(".")[1]
        times = orjson.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        return access, float(times["exp"] - times["iat"])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        # Not chained: the body holds a token
        raise LabelStudioRefused("Label Studio answered the token refresh with something else", 200) from None
