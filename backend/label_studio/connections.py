"""What ties a project to a service: model servers, webhooks, tabs of the Data Manager (measured on 1.23.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from backend.label_studio.connection import Connection
from backend.label_studio.errors import LabelStudioRefused


def model_server(project_id: int, url: str, title: str, user: str, password: str) -> dict[str, Any]:
    """Body of a model server. A change must carry all of it: Label Studio calls the server with what the body says."""
    return {
        "project": project_id,
        "url": url,
        "title": title,
        "is_interactive": True,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": user,
        "basic_auth_pass": password,
    }


def webhook(project_id: int, url: str, headers: Mapping[str, str], actions: Sequence[str]) -> dict[str, Any]:
    """Body of a webhook. A change must carry all of it: one without actions mutes the webhook."""
    return {
        "project": project_id,
        "url": url,
        "headers": dict(headers),
        "actions": list(actions),
        "send_payload": True,
        "send_for_all_actions": False,
        "is_active": True,
    }


def tab(project_id: int, data: Mapping[str, Any]) -> dict[str, Any]:
    """Body of a tab; ``data`` holds its title, filters, ordering and hidden columns."""
    return {"project": project_id, "data": dict(data)}


def send(
    connection: Connection, method: str, path: str, body: Mapping[str, Any], secrets: Sequence[str] = ()
) -> dict[str, Any]:
    """Create or change; ``secrets`` are values of the body that must not show in an error."""
    answer: dict[str, Any] = connection.call(method, path, content=orjson.dumps(body), secrets=tuple(secrets))
    return answer


def delete(connection: Connection, path: str) -> None:
    try:
        connection.call("DELETE", path)
    except LabelStudioRefused as error:
        if error.status != 404:  # Already gone is gone
            raise
