"""What can be learnt of a Label Studio without changing anything in it (measured on 1.23.2)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import orjson

from backend.label_studio.connection import Connection
from backend.label_studio.errors import LabelStudioError, LabelStudioRefused, LabelStudioUnauthorised

Token = Literal["personal", "access", "legacy"]
Refusal = Literal["blocked", "unknown host", "bad url"]
_SECONDS = 5.0
_NO_SUCH_ACTION = "WARDROUND_LOOKS"


@dataclass(frozen=True)
class Refusals:
    """Why Label Studio would not take an address, as that of a model server and of a webhook; None: it would."""

    model_server: Refusal | None
    webhook: Refusal | None


@dataclass(frozen=True)
class Answers:
    """What answers at an address. The two secrets are None where nothing like our API does."""

    problem: str | None
    takes_token: bool | None = None
    takes_secret: bool | None = None


def kind_of(token: str) -> Token:
    """Personal access tokens are JWTs that say of themselves that they refresh; access tokens live five minutes."""
    parts = token.split(".")
    if len(parts) != 3:
        return "legacy"
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return "personal"
    return "access" if isinstance(claims, Mapping) and claims.get("token_type") == "access" else "personal"


def release(connection: Connection) -> str:
    """Label Studio's version, such as 1.23.2; "" where it does not say."""
    answer = connection.call("GET", "/api/version/")
    return str(answer.get("release") or "") if isinstance(answer, Mapping) else ""


def require_access(connection: Connection) -> None:
    """Ask for the least that needs a token. Raises LabelStudioUnauthorised, LabelStudioUnreachable."""
    connection.call("GET", "/api/projects/", query={"page_size": 1, "include": "id"})


def lock_seconds(connection: Connection) -> float | None:
    """How long an annotator's lock keeps a task from others (TASK_LOCK_TTL); None where Label Studio does not tell.

    It tells a superuser with a personal access token, on a page that shows every setting, secrets included: only this
    one is looked at, and nothing of the page goes into an error.
    """
    try:
        with connection.opened(connection.get(connection.url("/version/"))) as response:
            page = response.read().decode(errors="replace")
        shown = orjson.loads(page.strip().removeprefix("<pre>").removesuffix("</pre>"))["settings"]
        return float(shown["TASK_LOCK_TTL"])
    except (ValueError, KeyError, TypeError, httpx.RequestError, LabelStudioError):
        return None


def refusals(connection: Connection, project_id: int, url: str) -> Refusals:
    """Whether Label Studio would take our address. Each question has a second fault, so nothing is ever created."""
    server = {"project": project_id, "url": url, "title": "", "timeout": "none"}
    hook = {"project": project_id, "url": f"{url}/webhook", "headers": {}, "actions": [_NO_SUCH_ACTION]}
    return Refusals(_refusal(connection, "/api/ml/", server), _refusal(connection, "/api/webhooks/", hook))


def _refusal(connection: Connection, path: str, body: Mapping[str, Any]) -> Refusal | None:
    try:
        connection.call("POST", path, content=orjson.dumps(body))
    except LabelStudioRefused as error:
        if error.status == 403 and "network address" in error.excerpt:
            return "blocked"
        if "resolve hostname" in error.excerpt:
            return "unknown host"
        if error.status == 400 and '"url"' in error.excerpt:
            return "bad url"
        if error.status == 400:
            return None
        raise
    return None


def legacy_tokens_are_off(error: LabelStudioUnauthorised) -> bool:
    """Whether a token was refused because its organisation allows no legacy tokens."""
    return "legacy token authentication has been disabled" in error.excerpt


def ask(url: str, user: str, password: str, header: str, secret: str) -> Answers:
    """What Label Studio would find at our public address if it stood here: the API, and whether it takes our secrets.

    The event that shows the webhook's secret has an action nobody knows, so the API stores nothing.
    """
    try:
        with httpx.Client(timeout=_SECONDS, trust_env=False) as http:
            health = http.get(f"{url}/health")
            if health.status_code != 200:
                return Answers(f"it answers {health.status_code} to /health")
            token = http.get(f"{url}/versions", auth=(user, password)).status_code
            event = http.post(f"{url}/webhook", headers={header: secret}, json={"action": _NO_SUCH_ACTION}).status_code
    except (httpx.RequestError, httpx.InvalidURL) as error:
        return Answers(type(error).__name__)
    if {token, event} - {200, 201, 401}:
        return Answers(f"what answers is not Wardround: it says {token} to /versions and {event} to /webhook")
    return Answers(None, token == 200, event == 201)
